"""Sweeps driven by real commands, whose processes a test can kill or suspend."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from command_line import Running, started, wait_until
from hand_made import write_file

from orchestrator.store.lock import Driver, read_driver, temporary_folders
from orchestrator.store.states import State, Status
from orchestrator.store.sweep import SweepStore
from orchestrator.store.trial import TrialStore
from orchestrator.trial.run import run_trial


@dataclass
class Sweep:
    """A sweep and the commands that have driven it. At the end, processes that are left of them are killed."""

    folder: Path
    store: SweepStore
    stack: contextlib.ExitStack
    commands: list[Running] = field(default_factory=list)
    changes: dict[str, str] = field(default_factory=dict)
    """Variables of the commands' environment."""

    def start(self, *arguments: object) -> Running:
        self.commands.append(self.stack.enter_context(started(*arguments, cwd=self.folder, **self.changes)))
        return self.commands[-1]

    def trials(self) -> list[TrialStore]:
        wait_until((self.store.path / "plan.json").exists)
        return [self.store.trial(entry.trial_id) for entry in self.store.entries()]

    def statuses(self) -> list[Status]:
        return [trial.status() for trial in self.trials()]

    def start_and_wait_until_busy(self, *arguments: object) -> Running:
        """Starts a command and returns when both trials have trained for a while and are still RUNNING."""
        before = [len(trial.epochs()) for trial in self.trials()] if self.commands else [0, 0]
        running = self.start(*arguments)
        wait_until(lambda: all(len(trial.epochs()) > n + 3 for trial, n in zip(self.trials(), before, strict=True)))
        assert [status.state for status in self.statuses()] == [State.RUNNING, State.RUNNING]
        return running

    def driver(self) -> Driver:
        driver = read_driver(self.store)
        assert driver is not None
        return driver

    def hang(self, number: int) -> None:
        """Suspends the worker of a trial, so that it does not end by itself."""
        os.kill(self.trials()[number].status().attempts[-1].pid, signal.SIGSTOP)

    def twins(self, folder: Path) -> Iterator[tuple[TrialStore, TrialStore]]:
        """Every trial, and the same trial run without disturbances."""
        for trial in self.trials():
            twin = TrialStore(folder / trial.trial_id)
            twin.create(trial.config())
            assert run_trial(twin, folder / "cache") is State.DONE
            yield trial, twin


@contextlib.contextmanager
def new_sweep(folder: Path, text: str) -> Iterator[Sweep]:
    write_file(folder, text)
    with contextlib.ExitStack() as stack:
        yield Sweep(folder, SweepStore(folder / "runs", text.split()[1]), stack)


def folders_of(driver: Driver) -> list[Path]:
    """The temporary folders of a driver that exist, whether it is alive or dead."""
    purposes = "ray", "orchestrator-tune"
    return [path for purpose in purposes for path in temporary_folders(purpose, driver.mark) if path.exists()]
