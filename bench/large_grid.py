"""Memory of the driver and of Ray's head over thousands of trials that do nothing.

Store, searcher, Ray and Ray Tune are real. A trial only writes that it is DONE, so that all growth is theirs. The first
two trials wait for each other: without that, the first worker would run all trials before the second one has started.
``many_trials.py`` measures the same curves with training, MLflow and the table.

Prints a page for ``bench/results``, or writes it with ``-o``. Exits with 1 if driver or head grow by more than BOUND
per trial over the second half. For a quick try: ``large_grid.py 200``.
"""

from __future__ import annotations

import argparse
import datetime
import gc
import importlib.metadata
import os
import platform
import secrets
import shlex
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from orchestrator.engine import tune as executor
from orchestrator.engine.executor import run_trials
from orchestrator.engine.placement import Placement
from orchestrator.engine.tune import TuneExecutor, ray_session
from orchestrator.store.lock import marked_processes
from orchestrator.store.states import Attempt, State, Status
from orchestrator.store.sweep import SweepStore
from orchestrator.sweep.file import read_sweep_file
from orchestrator.sweep.plan import make_plan
from orchestrator.trial.surroundings import git_commit

BOUND = 4.0
"""kB per trial. It leaves room for our own list of trials and for memory that the allocator does not give back."""

SEEDS = 10
ROWS = 10

Sample = tuple[int, float, float, float]
"""Trials that have ended, seconds, and the driver's and the head's resident memory in kB."""


def do_nothing(config: dict[str, Any], runs: str, sweep: str, **_: Any) -> None:
    """A trial that does nothing, in place of what ``executor.begin_on_worker`` returns."""
    from ray import tune

    path = Path(runs, sweep)
    with (path / "begun").open("ab") as file:
        file.write(b".")
    deadline = time.monotonic() + 60
    while (path / "begun").stat().st_size < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    SweepStore(path.parent, path.name).trial(config["trial_id"]).write_status(
        Status(State.DONE, [Attempt(started=1.0)])
    )
    with (path / "ended").open("ab") as file:
        file.write(b".")
    tune.report({"state": "DONE"})


def resident(pid: int) -> float:
    """The resident memory of a process in kB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return float(next(line for line in lines if line.startswith("VmRSS")).split()[1])


def head() -> int:
    """The process id of Ray's head (gcs_server)."""
    mark = os.environ["ORCHESTRATOR_DRIVER"]
    return next(pid for pid in marked_processes(mark) if b"gcs_server" in Path(f"/proc/{pid}/cmdline").read_bytes())


def measure(trials: int) -> tuple[list[Sample], int]:
    """Runs the trials. Returns samples, and the number of trials that Ray Tune still has in memory at the end."""
    with tempfile.TemporaryDirectory(prefix="large-grid-") as name:
        folder = Path(name)
        bounds = [round(0.01 + 0.001 * cell, 3) for cell in range(trials // SEEDS)]
        (folder / "large.yaml").write_text(
            f"base: [dataset=mixture, trainer=wgan, budget=2]\ngrid: {{penalty.bound: {bounds}}}\nseeds: {SEEDS}\n"
        )
        store = SweepStore(folder / "runs", "large")
        store.make()
        store.write_plan(make_plan(read_sweep_file(folder / "large.yaml"), ()))
        ids = [entry.trial_id for entry in store.entries()]
        print(f"{len(ids)} trials planned", file=sys.stderr, flush=True)
        mark, samples, over = secrets.token_hex(6), list[Sample](), threading.Event()
        (store.path / "ended").touch()
        executor.begin_on_worker = lambda: do_nothing
        with ray_session(None, mark):
            from ray.tune.experiment import Trial

            gcs, started = head(), time.monotonic()

            def watch() -> None:
                while not over.wait(0.2):
                    ended = (store.path / "ended").stat().st_size
                    samples.append((ended, time.monotonic() - started, resident(os.getpid()), resident(gcs)))

            watching = threading.Thread(target=watch)
            watching.start()
            run_trials(store, ids, TuneExecutor(Placement(dict.fromkeys(ids, (("CPU", 1.0),)), 2), mark))
            over.set()
            watching.join()
            kept = sum(isinstance(each, Trial) for each in gc.get_objects())
        states = {store.trial(trial_id).status().state for trial_id in ids}
    if states != {State.DONE}:
        raise RuntimeError(f"not every one of the {trials} trials is DONE: {states}")
    return samples, kept


def growth(samples: list[Sample], column: int) -> float:
    """Growth in kB per trial, by least squares over the second half."""
    half = [sample for sample in samples if samples[-1][0] / 2 <= sample[0] < samples[-1][0]]
    return statistics.linear_regression([each[0] for each in half], [each[column] for each in half]).slope


def page(samples: list[Sample], kept: int) -> str:
    """The page for ``bench/results``."""
    total = samples[-1][0]
    lines = ["| trials that have ended | seconds | driver: MB | head: MB |", "|---:|---:|---:|---:|"]
    for row in range(1, ROWS + 1):
        ended, seconds, driver, gcs = next(each for each in samples if each[0] >= total * row / ROWS)
        lines.append(f"| {ended} | {seconds:.0f} | {driver / 1024:.1f} | {gcs / 1024:.1f} |")
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("ray", "torch"))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return "\n".join(
        [
            f"# A large grid, {datetime.date.today()}",
            "",
            f"{os.cpu_count()} cores, {memory:.0f} GB, {platform.platform()}, Python {platform.python_version()},",
            f"{versions}; commit {git_commit()}; load {os.getloadavg()[0]:.1f}.",
            f"Command: `{shlex.join(['python', *sys.argv])}`",
            "",
            *lines,
            "",
            f"Growth over the second half, a trial: driver {growth(samples, 2):.1f} kB, head {growth(samples, 3):.1f}"
            f" kB (bound: {BOUND:g}). Trials that Ray Tune has in memory at the end: {kept}.",
            "",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Memory of the driver and of Ray's head over thousands of trials.")
    parser.add_argument("trials", nargs="?", type=int, default=2000, help=f"a multiple of {SEEDS}")
    parser.add_argument("-o", "--output", type=Path, help="the page; default: standard output")
    options = parser.parse_args()
    samples, kept = measure(options.trials)
    text = page(samples, kept)
    if options.output is not None:
        options.output.write_text(text)
    print(text)
    sys.exit(max(growth(samples, 2), growth(samples, 3)) > BOUND)


if __name__ == "__main__":
    main()
