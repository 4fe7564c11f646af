"""Runs every contender undisturbed and killed, in turns. Prints a JSON line for each, then the table."""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import shutil
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.peers.trial import CHECKPOINT_EPOCHS

SWEEP = f"""\
name: peers
base: [trainer=wgan_gp, device=cpu, budget=1000, evaluation.times=5, checkpoint_epochs={CHECKPOINT_EPOCHS}]
grid: {{critic_iterations: [1, 5], penalty.weight: [1, 10]}}
seeds: 2
"""
MARK = "BENCH_PEERS_MARK"
WORKERS = os.cpu_count() or 1
STRAGGLERS_SECONDS = 5.0
"""Time in which the workers of a killed command may still write. No command's seconds include it."""


@dataclass
class Ours:
    """``orchestrator``, whose runs directory is ``folder``."""

    folder: Path

    def command(self, *, again: bool) -> list[str]:
        program = str(Path(sys.executable).with_name("orchestrator"))
        words = ["resume", "peers"] if again else ["sweep", str(self.folder / "peers.yaml")]
        return [program, *words, "--runs-dir", str(self.folder)]

    def done(self) -> Counter[str]:
        """How many epochs are done, by trial."""
        found = Counter[str]()
        for file in self.folder.glob("peers/trials/*/metrics.jsonl"):
            found[file.parent.name] = file.read_text().count("\n") - 1  # without the line of the untrained generator
        return found

    def computed_again(self, before: Counter[str]) -> int:
        """How many of the epochs that were done ``before`` were computed again."""
        again = 0
        for file in self.folder.glob("peers/trials/*/status.json"):
            attempts, config = json.loads(file.read_text())["attempts"], read_config(file.parent)
            if len(attempts) > 1:
                again += max(0, before[file.parent.name] - attempts[-1]["resumed_at"] // config.epoch_length)
        return again

    def end_what_is_left(self, mark: str) -> None:
        """Does nothing, because the next command ends them."""

    def mlflow_runs(self) -> int:
        """The number of trials' runs, without the sweep's own run."""
        return count(self.folder / "mlflow.db", "select count(*) from tags where key = 'mlflow.parentRunId'")

    def results(self) -> dict[str, float]:
        """The final FID of every trial."""
        found = {}
        for file in self.folder.glob("peers/trials/*/metrics.jsonl"):
            found[file.parent.name] = json.loads(file.read_text().splitlines()[-1])["classifier_fid"]
        return found


@dataclass
class Peer:
    """A script in this package that trains with ``bench.peers.trial.train`` and keeps all files in ``folder``."""

    folder: Path
    words: list[str]

    def command(self, *, again: bool) -> list[str]:
        return [sys.executable, "-m", *self.words]

    def done(self) -> Counter[str]:
        """How many epochs are done, by trial."""
        return Counter(line.split("\t")[0] for line in set(self._log()))

    def computed_again(self, before: Counter[str]) -> int:
        """How many epochs were computed again."""
        return len(self._log()) - len(set(self._log()))

    def end_what_is_left(self, mark: str) -> None:
        """Ends the processes that the killed command left, as a user would have to."""
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):  # gone in the meantime
                if f"{MARK}={mark}".encode() in (folder / "environ").read_bytes().split(b"\0"):
                    os.kill(int(folder.name), signal.SIGKILL)

    def mlflow_runs(self) -> int:
        return count(self.folder / "mlflow.db", "select count(*) from runs where lifecycle_stage = 'active'")

    def results(self) -> dict[str, float]:
        """The final FID of every trial."""
        return {
            file.stem: json.loads(file.read_text())["classifier_fid"] for file in (self.folder / "final").glob("*.json")
        }

    def _log(self) -> list[str]:
        with contextlib.suppress(FileNotFoundError):
            return (self.folder / "epochs.log").read_text().splitlines()
        return []


Contender = Ours | Peer


def contenders(trials: int) -> dict[str, Any]:
    """Functions that make a contender in a folder, by name."""
    every = f"+index={','.join(map(str, range(trials)))}"

    def hydra(folder: Path, *options: str) -> Peer:
        where = [f"+folder={folder}", f"hydra.sweep.dir={folder / 'multirun'}"]
        return Peer(folder, ["bench.peers.hydra_multirun", "-m", *where, every, *options])

    found: dict[str, Any] = {
        "orchestrator": Ours,
        "bare Ray Tune": lambda folder: Peer(folder, ["bench.peers.ray_tune", str(folder)]),
        "Hydra multirun": hydra,
    }
    with contextlib.suppress(ModuleNotFoundError):
        if importlib.util.find_spec("hydra_plugins.hydra_joblib_launcher"):
            parallel = ["hydra/launcher=joblib", f"hydra.launcher.n_jobs={WORKERS}"]
            found["Hydra multirun, joblib"] = lambda folder: hydra(folder, *parallel)
    return found


def read_config(trial: Path) -> Any:
    import yaml

    from trainers.config import TrialConfig

    return TrialConfig.from_dict(yaml.safe_load((trial / "config.yaml").read_text()))


def count(database: Path, query: str) -> int:
    with contextlib.closing(sqlite3.connect(database)) as connection:
        return int(connection.execute(query).fetchone()[0])


def prepare(folder: Path) -> tuple[int, int]:
    """Writes the sweep file, the trials, and what they share: a classifier, features and a database.

    The database is made first, because two processes that make its tables at the same time fail. Returns the numbers of
    trials and epochs.
    """
    import mlflow

    from orchestrator.sweep.file import read_sweep_file
    from orchestrator.sweep.plan import make_plan
    from trainers.training import Training

    file = folder / "peers.yaml"
    file.write_text(SWEEP)
    trials = make_plan(read_sweep_file(file)).trials
    told = [{"label": trial.trial_id, "config": trial.config.to_dict()} for trial in trials]
    (folder / "trials.json").write_text(json.dumps(told))
    evaluator = Training(trials[0].config, cache_dir=folder / "cache").evaluator
    assert evaluator is not None
    evaluator.floor()
    mlflow.MlflowClient(f"sqlite:///{folder / 'mlflow.db'}").search_experiments()
    return len(trials), sum(trial.config.epochs for trial in trials)


@contextlib.contextmanager
def begun(contender: Contender, mark: str, *, again: bool = False) -> Iterator[subprocess.Popen[bytes]]:
    """The contender's running command. It is killed at the end."""
    with (contender.folder / "output.txt").open("ab") as output:
        process = subprocess.Popen(
            contender.command(again=again), env=os.environ | {MARK: mark}, stdout=output, stderr=output
        )
        try:
            yield process
        finally:
            process.kill()
            process.wait()


def timed(contender: Contender, mark: str, *, again: bool = False) -> float:
    started = time.perf_counter()
    with begun(contender, mark, again=again) as process:
        if process.wait():
            raise RuntimeError((contender.folder / "output.txt").read_text()[-2000:])
    return time.perf_counter() - started


def measure(make: Any, prepared: Path, folder: Path, epochs: int) -> dict[str, Any]:
    """Measures one contender, undisturbed and killed."""
    mark = uuid.uuid4().hex
    undisturbed, killed = (
        make(shutil.copytree(prepared, folder / name, symlinks=True)) for name in ("undisturbed", "killed")
    )
    seconds = timed(undisturbed, mark)
    with begun(killed, mark) as process:
        while killed.done().total() < epochs // 2:
            time.sleep(0.05)
        process.kill()
    time.sleep(STRAGGLERS_SECONDS)
    killed.end_what_is_left(mark)
    before = killed.done()
    on = timed(killed, mark, again=True)
    results, after = undisturbed.results(), killed.results()
    return {
        "seconds": seconds,
        "done_when_killed": before.total(),
        "seconds_to_go_on": on,
        "computed_again": killed.computed_again(before),
        "mlflow_runs": killed.mlflow_runs(),
        "equal": sum(after.get(label) == value for label, value in results.items()),
        "results": results,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-peers-") as name:
        prepared = Path(name) / "prepared"
        prepared.mkdir()
        trials, epochs = prepare(prepared)
        found: dict[str, list[dict[str, Any]]] = {}
        for number in range(options.rounds):
            for index, (contender, make) in enumerate(contenders(trials).items()):
                measured = measure(make, prepared, Path(name) / f"{number}-{index}", epochs)
                found.setdefault(contender, []).append(measured)
                print(json.dumps({"contender": contender, **measured}), flush=True)
    ours = found["orchestrator"][0]
    print(f"\n{trials} trials, {epochs} epochs, {WORKERS} workers; medians of {options.rounds} rounds; ", end="")
    print(f"load {os.getloadavg()[0]:.1f}\n")
    print("| | seconds | / ours | to go on: seconds | / ours | epochs again | MLflow runs | equal | as ours |")
    print("|---|---|---|---|---|---|---|---|---|")
    for contender, rounds in found.items():
        middle = {key: statistics.median(each[key] for each in rounds) for key in ours if key != "results"}
        ratios = {
            key: statistics.median(
                each[key] / base[key] for each, base in zip(rounds, found["orchestrator"], strict=True)
            )
            for key in ("seconds", "seconds_to_go_on")
        }
        alike = sum(rounds[0]["results"].get(label) == value for label, value in ours["results"].items())
        print(
            f"| {contender} | {middle['seconds']:.0f} | {ratios['seconds']:.2f} | {middle['seconds_to_go_on']:.0f} | "
            f"{ratios['seconds_to_go_on']:.2f} | {middle['computed_again']:.0f} of {middle['done_when_killed']:.0f} | "
            f"{middle['mlflow_runs']:.0f} | {middle['equal']:.0f} of {trials} | {alike} of {trials} |"
        )


if __name__ == "__main__":
    main()
