"""Time of every command and memory of the driver, for a hundred and for a thousand trivial trials.

The commands are real and run in a temporary directory: the plan alone, the sweep (plan, Ray, store, MLflow in SQLite,
table), then the commands that read the finished store. A trial is one epoch of two critic iterations on 140 points with
two evaluations, so that nearly all time is spent around it. While the sweep runs, the driver's resident memory and
processor time are read from /proc twice a second, together with the number of DONE trials in the store.

Prints a page for ``bench/results``, or writes it with ``-o``. Exits with 1 if the driver of the largest sweep grows by
more than BOUND per finished trial. For a quick try: ``many_trials.py 20 60``.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import itertools
import json
import math
import os
import platform
import resource
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path

BOUND = 100.0
"""kB of the driver's resident memory per finished trial, so that 10,000 trials need a gigabyte at most.

Memory grows by MLflow's client (an artifact repository per run, up to 1,024 of them), by the last ``status.json`` of
each trial in our Watch, and by what the allocator cannot give back. Ray Tune forgets trials that have ended; see
``large_grid.py``.
"""

SEEDS = 10
SAMPLE_SECONDS = 0.5
ORCHESTRATOR = str(Path(sys.executable).with_name("orchestrator"))
SWEEP = "`sweep`"
COMMANDS = {
    "`sweep --dry-run`": ["sweep", "many.yaml", "--dry-run"],
    SWEEP: ["sweep", "many.yaml"],
    "`sweep` again, nothing to do": ["sweep", "many.yaml"],
    "`status`": ["status", "many"],
    "`status --json`": ["status", "many", "--json"],
    "`export --format csv`": ["export", "many", "--format", "csv", "-o", "many.csv"],
    "`sync`, nothing to do": ["sync", "many"],
}


@dataclass(frozen=True)
class Sample:
    """The driver at one moment: seconds since its start, DONE trials, resident memory in kB, its peak, and load.

    ``cpu`` is in processor seconds; ``load`` is the machine's load average.
    """

    seconds: float
    done: int
    resident: int
    peak: int
    cpu: float
    load: float


@dataclass(frozen=True)
class Measured:
    """The measurements of a sweep of ``trials`` trials.

    ``seconds`` has each command's wall-clock and processor time, of its own process without Ray's. ``work`` is the
    total time in seconds of the trials' attempts, from started to ended. ``samples`` are the driver's.
    """

    trials: int
    seconds: dict[str, tuple[float, float]]
    work: float
    samples: list[Sample]

    def at(self, done: float) -> Sample:
        """The first sample with at least ``done`` DONE trials; the last sample if there is none."""
        return next((sample for sample in self.samples if sample.done >= done), self.samples[-1])

    @property
    def before(self) -> Sample:
        """The last sample without a DONE trial, when Ray has started and the first trials run."""
        return [sample for sample in self.samples if not sample.done][-1]

    @property
    def growth(self) -> float:
        """Growth in kB per finished trial, by least squares over the second half, long after all imports."""
        half = [sample for sample in self.samples if self.trials / 2 <= sample.done < self.trials]
        if len({sample.done for sample in half}) < 2:
            return math.nan
        return statistics.linear_regression([s.done for s in half], [s.resident for s in half]).slope

    def between(self, first: float, last: float) -> tuple[float, float]:
        """Seconds and the driver's processor seconds per trial, between two shares (0 to 1) of the trials."""
        start, end = self.at(max(1, first * self.trials)), self.at(last * self.trials)
        trials = max(1, end.done - start.done)
        return (end.seconds - start.seconds) / trials, (end.cpu - start.cpu) / trials


class Finished:
    """Counts the DONE trials of a sweep without disturbing it.

    Trials finish nearly in the order of the plan. So only the first unfinished trials are read each time.
    """

    def __init__(self, sweep: Path) -> None:
        self._sweep = sweep
        self._left: deque[str] = deque()
        self._total = 0

    def count(self) -> int:
        """The number of DONE trials."""
        if not self._total and (self._sweep / "plan.json").exists():
            plan = json.loads((self._sweep / "plan.json").read_text())
            self._left.extend(trial["trial_id"] for trial in plan["trials"])
            self._total = len(self._left)
        while self._left and self._is_done(self._left[0]):
            self._left.popleft()
        ahead = itertools.islice(self._left, 1, 1 + 2 * (os.cpu_count() or 1))
        return self._total - len(self._left) + sum(map(self._is_done, ahead))

    def _is_done(self, trial_id: str) -> bool:
        return json.loads((self._sweep / "trials" / trial_id / "status.json").read_text())["state"] == "DONE"


def sample(process: subprocess.Popen[bytes], started: float, finished: Finished) -> Sample | None:
    """Reads the driver's process; None if it has no memory because it is just ending."""
    folder = Path(f"/proc/{process.pid}")
    status = dict(line.split(":", 1) for line in (folder / "status").read_text().splitlines())
    if "VmRSS" not in status:
        return None
    times = (folder / "stat").read_text().rpartition(")")[2].split()
    cpu = (int(times[11]) + int(times[12])) / os.sysconf("SC_CLK_TCK")
    resident, peak = int(status["VmRSS"].split()[0]), int(status["VmHWM"].split()[0])
    return Sample(time.perf_counter() - started, finished.count(), resident, peak, cpu, os.getloadavg()[0])


def cpu_of_children() -> float:
    """Processor seconds of all child processes that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def measure(trials: int) -> Measured:
    """Runs every command. Raises RuntimeError if a command fails or a trial is not DONE at the end."""
    seconds: dict[str, tuple[float, float]] = {}
    samples: list[Sample] = []
    with tempfile.TemporaryDirectory(prefix="many-trials-") as name:
        folder = Path(name)
        bounds = [round(0.01 + 0.001 * cell, 3) for cell in range(trials // SEEDS)]
        (folder / "many.yaml").write_text(
            f"base: [dataset=mixture, trainer=wgan, budget=2]\ngrid: {{penalty.bound: {bounds}}}\nseeds: {SEEDS}\n"
        )
        finished = Finished(folder / "runs" / "many")
        for label, arguments in COMMANDS.items():
            started, cpu_before = time.perf_counter(), cpu_of_children()
            with (folder / "output.txt").open("w") as output:
                process = subprocess.Popen([ORCHESTRATOR, *arguments], cwd=folder, stdout=output, stderr=output)
                while label == SWEEP and process.poll() is None:
                    if (now := sample(process, started, finished)) is not None:
                        samples.append(now)
                    time.sleep(SAMPLE_SECONDS)
                process.wait()
            wall = time.perf_counter() - started
            seconds[label] = wall, samples[-1].cpu if label == SWEEP else cpu_of_children() - cpu_before
            print(f"{trials} trials, {shlex.join(arguments)}: {wall:.1f} s", file=sys.stderr, flush=True)
            if process.returncode:
                raise RuntimeError(f"{shlex.join(arguments)}: {(folder / 'output.txt').read_text()[-2000:]}")
        statuses = [json.loads(file.read_text()) for file in folder.glob("runs/many/trials/*/status.json")]
    if [status["state"] for status in statuses] != ["DONE"] * trials:
        raise RuntimeError(f"not every one of the {trials} trials is DONE")
    work = sum(attempt["ended"] - attempt["started"] for status in statuses for attempt in status["attempts"])
    return Measured(trials, seconds, work, samples)


def rows(result: Measured) -> dict[str, str]:
    """The column of one sweep in the table."""
    column = {
        f"{label}: seconds (processor)": f"{wall:.1f} ({cpu:.1f})" for label, (wall, cpu) in result.seconds.items()
    }
    column["until the first trial is DONE: seconds"] = f"{result.at(1).seconds:.0f}"
    column["`sweep`: seconds a trial"] = f"{result.seconds[SWEEP][0] / result.trials:.2f}"
    for half, first, last in (("first", 0.0, 0.5), ("second", 0.5, 1.0)):
        wall, cpu = result.between(first, last)
        column[f"from one DONE to the next, {half} half: seconds (driver's processor)"] = f"{wall:.2f} ({cpu:.2f})"
    column["a trial's own work: seconds"] = f"{result.work / result.trials:.2f}"
    column["driver's memory before the first trial is DONE: MB"] = f"{result.before.resident / 1024:.0f}"
    column["driver's memory when all are DONE: MB"] = f"{result.at(result.trials).resident / 1024:.0f}"
    column["driver's peak, the table included: MB"] = f"{result.samples[-1].peak / 1024:.0f}"
    column["driver's growth a finished trial, second half: kB"] = f"{result.growth:.0f}"
    column["load average of the machine meanwhile"] = f"{statistics.fmean(each.load for each in result.samples):.1f}"
    return column


def page(results: list[Measured]) -> str:
    """The page for ``bench/results``."""
    from orchestrator.trial.surroundings import git_commit

    columns = [rows(result) for result in results]
    lines = ["| | " + " | ".join(f"{result.trials} trials" for result in results) + " |"]
    lines += ["|---|" + "---:|" * len(results)]
    lines += [f"| {label} | " + " | ".join(column[label] for column in columns) + " |" for label in columns[0]]
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("ray", "mlflow", "torch"))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    kept = "kept" if is_kept(results) else "EXCEEDED"
    return "\n".join(
        [
            f"# Many trials, {datetime.date.today()}",
            "",
            f"{os.cpu_count()} cores, {memory:.0f} GB, {platform.platform()}, Python {platform.python_version()},",
            f"{versions}; commit {git_commit()}.",
            f"Command: `{shlex.join(['python', *sys.argv])}`",
            "",
            *lines,
            "",
            f"Bound: the driver grows by at most {BOUND:.0f} kB a finished trial: {kept}.",
            "",
        ]
    )


def is_kept(results: list[Measured]) -> bool:
    """Whether the largest sweep keeps the bound. True if there are too few trials to tell."""
    return not max(results, key=lambda result: result.trials).growth > BOUND


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Time of commands and memory of the driver, for a hundred and a thousand trials."
    )
    parser.add_argument("trials", nargs="*", type=int, default=[100, 1000], help=f"multiples of {SEEDS}")
    parser.add_argument("-o", "--output", type=Path, help="the page; default: standard output")
    options = parser.parse_args()
    if any(trials < SEEDS or trials % SEEDS for trials in options.trials):
        parser.error(f"trials: expected multiples of {SEEDS}, got {options.trials}")
    results = [measure(trials) for trials in options.trials]
    text = page(results)
    if options.output is not None:
        options.output.write_text(text)
    print(text)
    sys.exit(not is_kept(results))


if __name__ == "__main__":
    main()
