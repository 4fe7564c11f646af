"""Progress of a running sweep: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from orchestrator.errors import UserError
from orchestrator.printing import printable
from orchestrator.screen.units import duration
from orchestrator.store.epochs import Tail
from orchestrator.store.outlook import Outlook
from orchestrator.store.states import Attempt, State, Status
from orchestrator.store.sweep import Entry, SweepStore
from orchestrator.threads import in_background

STYLES = {
    State.RUNNING: "cyan",
    State.DONE: "green",
    State.STOPPED: "green",
    State.DIVERGED: "yellow",
    State.FAILED: "red",
    State.LOST: "red",
    State.PENDING: "dim",
}
ORDER = (State.RUNNING, State.FAILED, State.LOST, State.DIVERGED, State.DONE, State.STOPPED, State.PENDING)
REFRESH_SECONDS = 0.5
NUMBERS = 60
"""Upper bound of the characters that the table's other columns take. A wider table is harder to read across."""


@dataclass
class Seen:
    """What the store says about one trial so far."""

    entry: Entry
    tail: Tail
    status: Status = field(default_factory=Status)
    epoch: int = 0
    epoch_at: float | None = None
    metric: float | None = None
    seconds: float = 0.0
    timed: int = 0
    memory: float | None = None
    """Peak memory in MB: of the GPU, or of the process on a CPU."""
    problem: str | None = None
    """Why the trial's epochs cannot be read, with the file and what helps."""

    @property
    def label(self) -> str:
        """The cell and the seed: ``qp-wgan q=1 p=2 seed=0``."""
        return f"{self.entry.label} seed={self.entry.seed}"

    @property
    def error(self) -> str | None:
        """How the last attempt failed, or why the trial cannot be read."""
        return self.problem or self.status.error

    @property
    def seconds_per_epoch(self) -> float | None:
        """The mean so far, including evaluations; None before the first epoch."""
        return self.seconds / self.timed if self.timed else None


class Watch:
    """Follows every trial of a sweep by reading the store. It keeps one record per trial, not the whole history."""

    def __init__(self, store: SweepStore) -> None:
        plan, entries, grown = store.plan(), store.planned(), store.grown()
        self.store = store
        self.metric: str = plan["compare"]["metric"]
        self.trials: list[Seen] = []
        self.grows = grown is not None
        """Whether decisions may add trials."""
        self.outlook = Outlook(grown.growing if grown else None, grown.planned if grown else ())
        """What decisions may still add."""
        self._decided = store.decision_tail()
        self._known: set[str] = set()
        self._add(entries)

    def _add(self, entries: Iterable[Entry]) -> None:
        for entry in entries:
            if entry.trial_id not in self._known and entry.trial_id not in self.store.left_out:
                self._known.add(entry.trial_id)
                self.trials.append(Seen(entry, self.store.trial(entry.trial_id).tail()))

    def refresh(self) -> list[tuple[Seen, State]]:
        """Reads what is new. Returns the trials whose state changed, each with its previous state."""
        decisions = self._decided.read()
        self.outlook.add(decisions)
        self._add(entry for decision in decisions for entry in decision.trials)
        changed = []
        for seen in self.trials:
            before = seen.status
            if before.state.is_result and seen.epoch:
                continue
            trial = self.store.trial(seen.entry.trial_id)
            seen.status = trial.status()
            try:
                self._read(seen)
            except UserError as problem:
                seen.problem = trial.problem() or str(problem)
            if (before.state, len(before.attempts)) != (seen.status.state, len(seen.status.attempts)):
                changed.append((seen, before.state))
        return changed

    def _read(self, seen: Seen) -> None:
        for record in seen.tail.read():
            seen.epoch, seen.epoch_at = record["epoch"], record["timestamp"] / 1000
            seen.metric = record.get(self.metric, seen.metric)
            if "peak_memory_mb" in record:
                seen.memory = max(seen.memory or 0.0, record["peak_memory_mb"])
            if "epoch_seconds" in record:
                seen.seconds += record["epoch_seconds"] + record.get("evaluation_seconds", 0.0)
                seen.timed += 1

    def problems(self) -> list[str]:
        """Why trials cannot be read, one sentence a trial, with the file and what helps."""
        return [f"{seen.label}: {seen.problem}" for seen in self.trials if seen.problem]

    def counts(self) -> dict[State, int]:
        """How many trials are in each state."""
        states = [seen.status.state for seen in self.trials]
        return {state: states.count(state) for state in ORDER if state in states}

    def seconds_left(self, at_once: int) -> float | None:
        """Estimated seconds for the remaining epochs, at the mean pace so far and with ``at_once`` trials at a time.

        Trials that are sure to be decided count with the mean number of epochs. None before the first epoch.
        """
        timed, seconds = sum(s.timed for s in self.trials), sum(s.seconds for s in self.trials)
        if not timed:
            return None
        left = [s.entry.epochs - s.epoch for s in self.trials if not s.status.state.is_result]
        to_come = self.outlook.least
        epochs = sum(left) + to_come * sum(s.entry.epochs for s in self.trials) / len(self.trials)
        return epochs * seconds / timed / max(1, min(at_once, len(left) + to_come))


class Progress:
    """Shows a :class:`Watch`. Use it as a context manager, and call ``update`` after each ``refresh``."""

    def __init__(self, watch: Watch, console: Console, at_once: Callable[[], int], *, live: bool = True) -> None:
        self._watch = watch
        self._console = console
        self._at_once = at_once
        self._started = time.monotonic()
        self._told: set[tuple[str, int]] = set()
        self._unreadable()  # marks what earlier runs have already told
        live = live and console.is_interactive
        self._live = Live(console=console, auto_refresh=False, transient=True) if live else None

    def __enter__(self) -> Progress:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def update(self, changed: list[tuple[Seen, State]]) -> None:
        """Shows changes. A failure is printed at once, with its error and the path of its log."""
        for seen, attempt in self._unreadable():
            way_on = "continuing from the previous one" if attempt.resumed_at else "starting from scratch"
            self._say(Text(printable(f"{seen.label}: {'; '.join(attempt.unreadable)}; {way_on}"), style="yellow"))
        for seen, before in changed:
            state = seen.status.state
            failure = Text(printable(f"{state} {seen.label}: {seen.status.error}"), style=STYLES[state])
            if state in (State.FAILED, State.LOST):
                log = self._watch.store.trial(seen.entry.trial_id).log_file
                self._say(failure, printable(f"(log: {log})"))
            elif state is State.DIVERGED:
                self._say(failure)
            elif self._live is None and (state.is_result or state is State.RUNNING or before is State.RUNNING):
                self._say(Text(printable(self._line(seen))))
        if self._live:
            self._live.update(self._table(), refresh=True)

    def _unreadable(self) -> list[tuple[Seen, Attempt]]:
        """The attempts that found an unusable checkpoint and have not been returned before."""
        found = []
        for seen in self._watch.trials:
            attempts = seen.status.attempts
            key = (seen.entry.trial_id, len(attempts))
            if attempts and attempts[-1].unreadable and key not in self._told:
                self._told.add(key)
                found.append((seen, attempts[-1]))
        return found

    def _say(self, text: Text, place: str = "") -> None:
        """Prints one line in a log. On a terminal it breaks between words, and a path has its own line to copy from."""
        parts = (text, place) if place else (text,)
        if self._live is None:
            self._console.print(*parts, soft_wrap=True, highlight=False, markup=False)
            return
        self._console.print(text)
        if place:
            self._console.print(place, style="dim", soft_wrap=True, highlight=False, markup=False)

    def _line(self, seen: Seen) -> str:
        done = sum(other.status.state.is_result for other in self._watch.trials)
        outlook = self._watch.outlook
        more = "+" if outlook.most > outlook.least else ""
        parts = [f"[{done}/{len(self._watch.trials) + outlook.least}{more}]", str(seen.status.state), seen.label]
        if seen.metric is not None and seen.status.state.is_result:
            parts.append(f"{self._watch.metric}={seen.metric:.4g}")
        left = self._watch.seconds_left(self._at_once())
        if left:
            parts.append(f"({duration(left)} left)")
        return " ".join(parts)

    def _table(self) -> Group:
        watch = self._watch
        rows = sorted(watch.trials, key=lambda seen: ORDER.index(seen.status.state))
        room = max(3, self._console.height - 7)
        wanted = max((len(seen.entry.label) for seen in rows), default=0) + len(watch.metric) + NUMBERS
        table = Table(box=None, pad_edge=False, width=min(wanted, self._console.width), header_style="bold")
        table.add_column("trial", ratio=1, overflow="ellipsis", no_wrap=True)
        for name in (
            "seed",  # its own column, because the end of a long trial name is cut off
            "state",
            "epoch",
            Text(printable(watch.metric if self._console.width >= 100 else watch.metric.rpartition("_")[2])),
            "s/epoch",
            "left",
        ):
            table.add_column(name, justify="right", no_wrap=True)
        for seen in rows[:room]:
            state, pace = seen.status.state, seen.seconds_per_epoch
            left = (seen.entry.epochs - seen.epoch) * pace if pace and state is State.RUNNING else None
            table.add_row(
                Text(printable(seen.entry.label)),
                str(seen.entry.seed),
                Text(str(state), style=STYLES[state]),
                f"{seen.epoch}/{seen.entry.epochs}",
                "" if seen.metric is None else f"{seen.metric:.4g}",
                "" if pace is None else f"{pace:.3g}",
                "" if left is None else duration(left),
            )
        counts = ", ".join(f"{number} {state}" for state, number in watch.counts().items())
        counts += f", {watch.outlook.told} to come" if watch.outlook.told else ""
        left = watch.seconds_left(self._at_once())
        hidden = f" ({len(rows) - room} more not shown)" if len(rows) > room else ""
        footer = f"{counts}{hidden} · {duration(time.monotonic() - self._started)} so far"
        return Group(table, Text(footer + (f" · about {duration(left)} left" if left else ""), style="dim"))


@contextlib.contextmanager
def show_progress(
    store: SweepStore, console: Console, at_once: Callable[[], int], *, live: bool = True
) -> Iterator[None]:
    """Shows the progress of a sweep meanwhile, read from the store by a thread; without ``live`` as plain lines.

    ``at_once`` says how many trials run together.
    """
    watch = Watch(store)
    watch.refresh()  # marks what earlier runs have already told
    with Progress(watch, console, at_once, live=live) as progress:
        progress.update(watch.refresh())

        def follow(ended: threading.Event) -> None:
            while not ended.wait(REFRESH_SECONDS):
                progress.update(watch.refresh())

        try:
            with in_background(follow, "progress"):
                yield
        finally:
            progress.update(watch.refresh())
