"""What share of a trial lies outside training and evaluation: ``python -m bench.trial_share [OVERRIDE]…``.

    share = 1 − (Σ epoch_seconds + Σ evaluation_seconds) / (ended − started)

of each trial of a sweep of seeds, ten epochs of the digits unless overrides say otherwise (``dataset=mnist
budget=9370``), from its ``status.json`` and ``metrics.jsonl``. A worker process serves many trials: the first in each
process imports torch-fidelity and the like for those after it, and the first of all trains the classifier, so that
they are told apart; the median is of the others.
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
    """Process, start, and seconds of attempt, training and evaluation of each trial, in the order of their starts."""
    with tempfile.TemporaryDirectory(prefix="trial-share-") as name:
        folder = Path(name)
        (folder / "share.yaml").write_text(f"base: {json.dumps([TEN_EPOCHS, *overrides])}\nseeds: {seeds}\n")
        command = [str(Path(sys.executable).with_name("orchestrator")), "sweep", str(folder / "share.yaml")]
        subprocess.run([*command, "--runs-dir", str(folder / "runs")], stdout=subprocess.DEVNULL, check=True)
        trials = [read(path) for path in (folder / "runs" / "share" / "trials").iterdir()]
    return sorted(trials, key=lambda trial: trial["started"])


def read(trial: Path) -> dict[str, Any]:
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
