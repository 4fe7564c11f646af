"""The share of a trial outside training and evaluation: ``python -m bench.trial_share [OVERRIDE]…``.

    share = 1 − (Σ epoch_seconds + Σ evaluation_seconds) / (ended − started)

It is computed for each trial of a sweep over seeds, from ``status.json`` and ``metrics.jsonl``. A trial has ten epochs
of the digits, unless overrides such as ``dataset=mnist budget=9370`` change that. A worker process runs many trials.
The first trial in a process imports libraries such as torch-fidelity for the later ones, and the very first one trains
the classifier. So the first trials are marked, and the median is over the others.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

TEN_EPOCHS = "budget=200"
TARGET = 0.03


def sweep(overrides: list[str], seeds: int) -> list[dict[str, Any]]:
    """Runs the sweep. Returns what :func:`read` returns of each trial, in the order in which they started."""
    with tempfile.TemporaryDirectory(prefix="trial-share-") as name:
        folder = Path(name)
        (folder / "share.yaml").write_text(f"base: {json.dumps([TEN_EPOCHS, *overrides])}\nseeds: {seeds}\n")
        command = [str(Path(sys.executable).with_name("orchestrator")), "sweep", str(folder / "share.yaml")]
        subprocess.run([*command, "--runs-dir", str(folder / "runs")], stdout=subprocess.DEVNULL, check=True)
        trials = [read(path) for path in (folder / "runs" / "share" / "trials").iterdir()]
    return sorted(trials, key=lambda trial: trial["started"])


def read(trial: Path) -> dict[str, Any]:
    """A trial's process id, start, number of epochs, and seconds of its attempt, training and evaluation."""
    (attempt,) = json.loads((trial / "status.json").read_text())["attempts"]
    epochs: list[dict[str, Any]] = [json.loads(line) for line in (trial / "metrics.jsonl").read_text().splitlines()]
    return {
        "pid": attempt["pid"],
        "started": attempt["started"],
        "attempt": attempt["ended"] - attempt["started"],
        "training": sum(epoch.get("epoch_seconds", 0.0) for epoch in epochs),
        "evaluation": sum(epoch.get("evaluation_seconds", 0.0) for epoch in epochs),
        "epochs": len(epochs) - 1,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*", metavar="OVERRIDE")
    parser.add_argument("--seeds", type=int, default=8)
    options = parser.parse_args()
    print("| trial | epochs | attempt: s | training: s | evaluation: s | outside: s | share |")
    print("|---|---|---|---|---|---|---|")
    served: set[int] = set()
    shares = []
    for number, each in enumerate(sweep(options.overrides, options.seeds)):
        outside = each["attempt"] - each["training"] - each["evaluation"]
        share = outside / each["attempt"]
        first = each["pid"] not in served
        served.add(each["pid"])
        if not first:
            shares.append(share)
        seconds = (each["attempt"], each["training"], each["evaluation"], outside)
        print(f"| {number}{', first in its process' if first else ''} | {each['epochs']}", end=" | ")
        print(*(f"{value:.2f}" for value in seconds), f"{share:.1%} |", sep=" | ")
    middle = statistics.median(shares)
    print(f"\nMedian of {len(shares)} that were not the first: {middle:.1%} (target ≤ {TARGET:.0%}:", end=" ")
    print(f"{'met' if middle <= TARGET else 'missed'}); load {os.getloadavg()[0]:.1f}.")


if __name__ == "__main__":
    main()
