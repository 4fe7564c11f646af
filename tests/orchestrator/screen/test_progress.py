"""The progress of a running sweep, read from the store alone."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest
from grown_sweeps import HEAD, RACE, SEARCH, plan, run
from hand_made import attempt, finish
from rich.console import Console

from orchestrator.decisions.growth import Growth
from orchestrator.screen.progress import Progress, Watch
from orchestrator.store.epochs import EpochLog
from orchestrator.store.states import State, Status
from orchestrator.store.sweep import SweepStore


class Screen:
    """Progress on a terminal, or on a plain file, of a certain width."""

    def __init__(self, store: SweepStore, width: int, terminal: bool) -> None:
        self.written = io.StringIO()
        self.console = Console(
            width=width,
            height=30,
            force_terminal=terminal,
            force_interactive=terminal,
            file=self.written,
            color_system="standard" if terminal else "auto",
        )
        self.watch = Watch(store)
        self.progress = Progress(self.watch, self.console, lambda: 2)

    def show(self) -> str:
        """The output that appears when the store is read now."""
        before = len(self.written.getvalue())
        with self.progress:
            self.progress.update(self.watch.refresh())
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self.written.getvalue()[before:])

    def show_table(self) -> list[str]:
        """The lines of the table as it stands now."""
        text = self.show().replace("\r", "\n").rstrip()
        return text[text.rindex("\ntrial ") + 1 :].splitlines()


def begin(store: SweepStore, number: int, epochs: int, metric: float | None = None, attempts: int = 1) -> str:
    """Stores some epochs of a trial, a fifth of a second each. Returns the trial's label."""
    entry = store.entries()[number]
    trial = store.trial(entry.trial_id)
    trial.write_status(Status(State.RUNNING, [attempt(ended=None) for _ in range(attempts)]))
    log = EpochLog(trial.metrics_file)
    for epoch in range(epochs + 1):
        record = {"epoch": epoch, "iteration": 17 * epoch}
        record |= {"epoch_seconds": 0.15, "evaluation_seconds": 0.05} if epoch else {}
        record |= {"exact_w1": metric} if metric is not None and epoch == epochs else {}
        log.append(record)
    return f"{entry.label} seed={entry.seed}"


@pytest.mark.parametrize("width", [80, 200])
def test_a_terminal_shows_state_epoch_metric_and_pace_of_each_trial(store: SweepStore, width: int) -> None:
    label = begin(store, 0, 2, 0.123456)
    finish(store, store.entries()[1], {"exact_w1": 0.75}, epochs=3)
    lines = Screen(store, width, terminal=True).show_table()
    cell, _, seed = label.rpartition(" seed=")
    line = next(line for line in lines if line.startswith(cell) and "RUNNING" in line)
    assert re.search(rf"\s{seed}\s+RUNNING\s+2/3\s+0\.1235\s+0\.2\s", line)  # of three epochs, two are over
    done = next(line for line in lines if "DONE" in line)
    assert re.search(r"3/3\s+0\.75", done)
    assert "w1" in lines[0]
    assert lines[-1].startswith("1 RUNNING, 1 DONE, 2 PENDING · ")
    assert lines[-1].endswith(" left")
    assert all(len(line) <= width for line in lines)


def test_elsewhere_progress_is_plain_lines_only_for_what_is_new(store: SweepStore) -> None:
    screen = Screen(store, 80, terminal=False)
    assert screen.show() == ""
    label = begin(store, 0, 1)
    assert screen.show().startswith(f"[0/4] RUNNING {label}")
    assert screen.show() == ""
    begin(store, 0, 2)
    assert screen.show() == ""  # an epoch is no news
    finish(store, store.entries()[0], {"exact_w1": 0.75}, epochs=3)
    line = screen.show()
    assert line.startswith(f"[1/4] DONE {label} exact_w1=0.75")
    assert line.count("\n") == 1
    assert "\x1b" not in screen.written.getvalue()


@pytest.mark.parametrize("terminal", [True, False], ids=["terminal", "elsewhere"])
@pytest.mark.parametrize("state", [State.FAILED, State.LOST, State.DIVERGED])
def test_what_went_wrong_is_shown_at_once_with_its_last_line_and_its_log(
    store: SweepStore, state: State, terminal: bool
) -> None:
    screen = Screen(store, 80, terminal)
    label = begin(store, 1, 1)
    screen.show()
    trial = store.trial(store.entries()[1].trial_id)
    trial.set_state(state, "OSError: [Errno 28] no space left on [device]")
    text = screen.show()
    told = f"{state} {label}: OSError: [Errno 28] no space left on [device]"
    assert told in " ".join(text.split())
    if state is not State.DIVERGED:
        assert f"(log: {trial.log_file})" in text  # as one piece
    assert (text.count("\n") == 1) or terminal  # a log is searched by lines
    assert told not in " ".join(screen.show().split())  # once


def test_a_second_attempt_that_fails_again_is_told_again(store: SweepStore) -> None:
    screen = Screen(store, 80, terminal=False)
    for attempts in (1, 2):
        label = begin(store, 0, 0, attempts=attempts)
        store.trial(store.entries()[0].trial_id).set_state(State.FAILED, "OSError: out of paper")
        assert screen.show().startswith(f"FAILED {label}: OSError: out of paper")


def test_more_trials_than_fit_are_counted(store: SweepStore) -> None:
    screen = Screen(store, 80, terminal=True)
    screen.console.height = 10  # room for three
    lines = screen.show_table()
    assert sum(line.startswith("hand weight=") for line in lines) == 3
    assert "(1 more not shown)" in lines[-1]


def test_what_is_left_is_the_pace_so_far_spread_over_those_at_work(store: SweepStore) -> None:
    watch = Watch(store)
    watch.refresh()
    assert watch.seconds_left(2) is None  # nothing is known yet
    begin(store, 0, 2)
    watch.refresh()
    # 12 epochs in all, 2 over at 0.2 s each, two trials at once
    assert watch.seconds_left(2) == pytest.approx(10 * 0.2 / 2)
    assert watch.seconds_left(1) == pytest.approx(10 * 0.2)
    for entry in store.entries():
        store.trial(entry.trial_id).set_state(State.DONE)
    watch.refresh()
    assert watch.seconds_left(2) == 0


def test_a_watch_tells_what_changed(store: SweepStore) -> None:
    watch = Watch(store)
    assert watch.refresh() == []
    begin(store, 2, 1, 0.5)
    ((seen, before),) = watch.refresh()
    assert (seen.entry, before, seen.status.state) == (store.entries()[2], State.PENDING, State.RUNNING)
    assert (seen.epoch, seen.metric, seen.seconds_per_epoch) == (1, 0.5, pytest.approx(0.2))
    assert watch.counts() == {State.RUNNING: 1, State.PENDING: 3}
    assert watch.refresh() == []


def test_on_a_terminal_no_line_is_longer_and_elsewhere_nothing_is_but_text(store: SweepStore) -> None:
    """Long names and errors are wrapped. A path is not, so that it can be copied."""
    (store.path / "plan.json").write_text((store.path / "plan.json").read_text().replace('"hand"', f'"{"long " * 30}"'))
    screens = {terminal: Screen(store, 80, terminal) for terminal in (True, False)}
    begin(store, 0, 2, 0.5)
    for number, state in ((1, State.FAILED), (2, State.LOST), (3, State.DIVERGED)):
        begin(store, number, 1)
        store.trial(store.entries()[number].trial_id).set_state(state, "OSError: " + "no space left " * 20)
    shown = {terminal: screen.show() for terminal, screen in screens.items()}
    lines = shown[True].replace("\r", "\n").splitlines()
    assert max(len(line) for line in lines if not line.startswith("(log: ")) <= 80
    assert "\x1b[" in screens[True].written.getvalue()
    assert "\x1b" not in screens[False].written.getvalue()
    assert "\r" not in screens[False].written.getvalue()
    for state in (State.FAILED, State.LOST, State.DIVERGED):
        assert len([line for line in shown[False].splitlines() if line.startswith(state)]) == 1


def test_a_terminal_that_can_only_print_has_lines_as_a_log_has(
    store: SweepStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "dumb")
    written = io.StringIO()
    watch = Watch(store)
    with Progress(watch, Console(width=80, force_terminal=True, file=written), lambda: 1) as progress:
        label = begin(store, 0, 1)
        progress.update(watch.refresh())
    assert written.getvalue().startswith(f"[0/4] RUNNING {label}")
    assert "\x1b" not in written.getvalue()


def test_a_search_has_a_known_total_and_time_left_from_the_start(tmp_path: Path) -> None:
    store = plan(tmp_path, HEAD + SEARCH)
    Growth(store).begin([])
    screen = Screen(store, 80, terminal=False)
    screen.show()
    label = begin(store, 0, 2)
    assert screen.show().startswith(f"[0/10] RUNNING {label}")  # of 2 × 3 proposals and 2 × 2 confirmations
    # Three epochs a trial, two of the first are over, at 0.2 s each; two trials at once.
    assert screen.watch.seconds_left(2) == pytest.approx((10 * 3 - 2) * 0.2 / 2)
    run(store)
    assert "[10/10] DONE" in screen.show()
    assert screen.watch.seconds_left(2) == 0


def test_the_plus_stays_only_while_a_race_may_add_trials(tmp_path: Path) -> None:
    store = plan(tmp_path, HEAD + RACE)
    screen = Screen(store, 80, terminal=False)
    screen.show()
    run(store, 2)
    assert "[2/6+] DONE" in screen.show()  # four trials, and two that confirm the best cell
    assert screen.watch.outlook.told == "2 to 6"
    run(store)
    assert f"[{len(store.entries())}/{len(store.entries())}] DONE" in screen.show()
    assert screen.watch.outlook.told == ""


def test_a_terminal_counts_what_is_to_come(tmp_path: Path) -> None:
    store = plan(tmp_path, HEAD + SEARCH)
    screen = Screen(store, 80, terminal=True)
    assert ", 10 to come · " in screen.show()  # nothing is decided yet
    run(store, 1)
    assert screen.show_table()[-1].startswith("1 DONE, 5 PENDING, 4 to come · ")
