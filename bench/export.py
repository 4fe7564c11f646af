"""Time and peak memory of ``export`` and ``load`` for ten thousand trials of fifty epochs.

The real planner plans the sweep (2,000 cells of five seeds). Its store is written as workers would write it, with
numbers from a fixed seed and ten evaluations per trial. Every command is its own process; its peak memory is what the
kernel reports. Prints a page for ``bench/results``, or writes it with ``-o``. Exits with 1 if a command takes more than
20 s or 1 GB. For a quick try: ``export.py --trials 100``.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from orchestrator.store.states import Attempt, State, Status
from orchestrator.store.sweep import SweepStore
from orchestrator.sweep.file import read_sweep_file
from orchestrator.sweep.plan import make_plan

SECONDS, MEGABYTES = 20.0, 1000.0
SEEDS, EPOCHS = 5, 50
METRICS = ("classifier_fid", "classifier_is", "classifier_kid", "classifier_precision", "classifier_recall")
STATISTICS = ("critic_loss", "dual_value", "penalty", "generator_loss", "generator_steps", "wasserstein_estimate")
ORCHESTRATOR = str(Path(sys.executable).with_name("orchestrator"))
LOAD = "import orchestrator; loaded = orchestrator.load('runs/wide'); print(loaded.trials.shape, loaded.epochs.shape)"
COMMANDS = {
    "`export --format csv`": [ORCHESTRATOR, "export", "wide", "--format", "csv", "-o", "wide.csv"],
    "`export --format latex`": [ORCHESTRATOR, "export", "wide", "--format", "latex", "-o", "wide.tex"],
    "`export --format json --at classifier_fid=40`": [
        *(ORCHESTRATOR, "export", "wide", "--format", "json"),
        *("--at", "classifier_fid=40", "--baseline", "wide q=1.01 p=1", "-o", "wide.json"),
    ],
    '`orchestrator.load("runs/wide")`': [sys.executable, "-c", LOAD],
}


def write_sweep(folder: Path, trials: int) -> None:
    """Writes a finished sweep of ``trials`` trials to ``folder/runs/wide``."""
    axis = ", ".join(f"{1.01 + number / 1000:.3f}" for number in range(trials // SEEDS // 2))
    text = (
        f"name: wide\nbase: [trainer=qp_wgan]\ngrid: {{objective.q: [{axis}], objective.p: [1, 2]}}\nseeds: {SEEDS}\n"
    )
    (folder / "wide.yaml").write_text(text)
    store = SweepStore(folder / "runs", "wide")
    store.make()
    store.write_plan(make_plan(read_sweep_file(folder / "wide.yaml"), [], None))
    source = random.Random(0)
    attempt = Attempt(started=0.0, ended=1.0, commit="0" * 12, host="here", pid=1)
    references = {
        "metrics": METRICS,
        "higher_is_better": METRICS[1:2] + METRICS[3:],
        "floor": dict.fromkeys(METRICS, 0.5),
        "info": {"extractor": "a classifier"},
    }
    for entry in store.entries():
        trial = store.trial(entry.trial_id)
        trial.write_references(references)
        trial.write_status(Status(State.DONE, [attempt]))
        trial.metrics_file.write_text("".join(json.dumps(record(epoch, source)) + "\n" for epoch in range(EPOCHS + 1)))


def record(epoch: int, source: random.Random) -> dict[str, Any]:
    """The record of an epoch, as long as a real line of ``metrics.jsonl``."""
    values: dict[str, Any] = {"epoch": epoch, "iteration": 28 * epoch}
    if epoch:
        values |= {name: source.random() for name in (*STATISTICS, "epoch_seconds", "images_per_second")}
    if epoch % 5 == 0:
        values |= {name: 80 * source.random() for name in (*METRICS, "evaluation_seconds")}
    return {**values, "timestamp": 1_700_000_000_000 + epoch}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("-o", "--output", type=Path)
    arguments = parser.parse_args()
    lines, missed = [], []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_sweep(folder, arguments.trials)
        for shown, command in COMMANDS.items():
            started = time.perf_counter()
            process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL)
            _, code, usage = os.wait4(process.pid, 0)
            seconds, megabytes = time.perf_counter() - started, usage.ru_maxrss / 1024
            process.returncode = code
            if code:
                sys.exit(f"{shown} ended with {code}")
            if seconds > SECONDS or megabytes > MEGABYTES:
                missed.append(shown)
            processor = usage.ru_utime + usage.ru_stime
            print(shown, f"{seconds:.1f} s", file=sys.stderr)
            lines.append(f"| {shown} | {seconds:.1f} | {processor:.1f} | {megabytes:.0f} |")
        store = sum(file.stat().st_size for file in (folder / "runs").rglob("*")) / 1e6
    page = [
        f"# {arguments.trials} trials of {EPOCHS} epochs as a table, {datetime.date.today()}",
        "",
        f"`python bench/export.py --trials {arguments.trials}`, {os.cpu_count()} cores of {platform.machine()}, "
        f"Python {platform.python_version()}; a store of {store:.0f} MB; load {os.getloadavg()[0]:.1f} at the end.",
        f"Promised: each under {SECONDS:.0f} s and {MEGABYTES:.0f} MB. "
        + (f"Missed: {missed}." if missed else "Kept."),
        "",
        "| command | seconds | processor seconds | peak MB |",
        "| --- | --- | --- | --- |",
        *lines,
    ]
    text = "\n".join(page) + "\n"
    if arguments.output:
        arguments.output.write_text(text)
    print(text)
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
