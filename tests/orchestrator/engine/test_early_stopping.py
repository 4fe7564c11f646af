"""Early stopping decides as Ray Tune's schedulers do, survives its driver, and never takes a decision back."""

from __future__ import annotations

import itertools
import json
import secrets
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hand_made import Planner, attempt, finish, make_sweep, one_cpu_each
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mlflow_dump import dump
from ray.tune.experiment import Trial
from ray.tune.schedulers import AsyncHyperBandScheduler, MedianStoppingRule, TrialScheduler

from orchestrator.driver.preparation import prepare
from orchestrator.engine.early_stopping import Stopper
from orchestrator.engine.executor import run_trials
from orchestrator.engine.queue import Queue
from orchestrator.engine.tune import TuneExecutor
from orchestrator.errors import UserError
from orchestrator.results.comparison import comparison_table
from orchestrator.store.selection import select
from orchestrator.store.states import State, Status
from orchestrator.store.sweep import Entry, SweepStore
from orchestrator.sweep.file import EarlyStopping
from orchestrator.tracking.mirror import Mirror
from orchestrator.trial.run import run_trial

LENGTH, EPOCHS = 17, 8
RACE = """\
name: race
base: [dataset=mixture, batch_size=8, budget=136, evaluation.times=8, device=cpu]
grid: {penalty.weight: [1, 2, 3, 4, 5]}
compare: {metric: exact_w1, mode: min}
"""
METRIC = "exact_w1"
ASHA = EarlyStopping("asha", grace=34, metric=METRIC, mode="min", reduction_factor=2.0)
MEDIAN = EarlyStopping("median", grace=34, metric=METRIC, mode="min", minimum_trials=2)
BOTH = pytest.mark.parametrize("options", [ASHA, MEDIAN], ids=["asha", "median"])


@pytest.fixture(scope="module")
def planned_race(tmp_path_factory: pytest.TempPathFactory) -> SweepStore:
    """Five trials of eight epochs that nothing has touched."""
    return make_sweep(tmp_path_factory.mktemp("race"), RACE)


@pytest.fixture(scope="module")
def new_race(planned_race: SweepStore, tmp_path_factory: pytest.TempPathFactory) -> Callable[[], SweepStore]:
    """Makes any number of copies of the race, because Hypothesis cannot use a new fixture for each example."""

    def copied() -> SweepStore:
        runs = tmp_path_factory.mktemp("runs", numbered=True) / "runs"
        shutil.copytree(planned_race.runs_dir, runs)
        return SweepStore(runs, "race")

    return copied


@pytest.fixture
def race(new_race: Callable[[], SweepStore]) -> SweepStore:
    return new_race()


class Course:
    """Stores epochs as the workers of a race would, and shows them to a Stopper as a driver would.

    Timestamps are its own clock's. A trial that was told to stop stores nothing more.
    """

    def __init__(self, store: SweepStore, options: EarlyStopping) -> None:
        self.store, self.options = store, options
        self.ids = [entry.trial_id for entry in store.entries()]
        self.stopper = Stopper(store, options)
        self.clock = itertools.count(1_700_000_000_000)

    def begin_again(self) -> None:
        """A new driver, which knows only the store."""
        self.stopper = Stopper(self.store, self.options)

    def record(self, number: int, value: float | None) -> dict[str, Any]:
        """The next epoch of a trial is stored."""
        trial = self.store.trial(self.ids[number])
        epoch = len(trial.epochs())
        record = {"epoch": epoch, "iteration": LENGTH * epoch} | ({} if value is None else {METRIC: value})
        with trial.metrics_file.open("a") as file:
            file.write(json.dumps({**record, "timestamp": next(self.clock)}) + "\n")
        return record

    def epoch(self, number: int, value: float | None) -> bool:
        """Stores the next epoch and shows it to the Stopper. Returns whether the trial is told to stop."""
        self.stopper.observe(self.ids[number], self.record(number, value))
        return self.told(number)

    def told(self, number: int) -> bool:
        return self.store.trial(self.ids[number]).early_stop_file.exists()

    def run(self, number: int, values: Sequence[float]) -> int | None:
        """Stores epochs 0, 1, 2, … of a trial until it is told to stop. Returns that epoch, or None if it never is."""
        return next((epoch for epoch, value in enumerate(values) if self.epoch(number, value)), None)

    def decisions(self) -> dict[int, dict[str, Any]]:
        """The reasons that were given to the trials that were told to stop."""
        files = {number: self.store.trial(trial_id).early_stop_file for number, trial_id in enumerate(self.ids)}
        return {number: json.loads(file.read_text()) for number, file in files.items() if file.exists()}


def constant(value: float) -> list[float]:
    """The same value in every epoch after epoch 0, whose value is far off."""
    return [100.0, *[value] * EPOCHS]


def tunes_own(options: EarlyStopping) -> Any:
    """Tune's own scheduler, as a user of Tune would write it."""
    common: dict[str, Any] = {
        "time_attr": "iteration",
        "metric": options.metric,
        "mode": options.mode,
        "grace_period": options.grace,
    }
    if options.scheduler == "asha":
        factor = options.reduction_factor
        return AsyncHyperBandScheduler(**common, max_t=LENGTH * EPOCHS, reduction_factor=factor, stop_last_trials=False)
    return MedianStoppingRule(**common, min_samples_required=options.minimum_trials)


# All trials have begun: none waits for one to be paused.
CONTROLLER = SimpleNamespace(get_live_trials=list)


def test_asha_stops_at_each_rung_what_is_worse_than_the_median_of_those_before_it(race: SweepStore) -> None:
    course = Course(race, ASHA)  # rungs at epochs 2, 4 and 8, of which the last is the end
    assert course.run(0, constant(1.0)) is None  # nothing to compare with
    assert course.run(1, constant(2.0)) == 2
    assert course.run(2, constant(0.5)) is None
    assert course.run(3, constant(1.5)) == 2  # 1, 2 and 0.5 were there before it
    assert course.run(4, constant(1.0)) == 4  # better than half of 1, 2, 0.5 and 1.5, but not of 1 and 0.5


def test_a_greater_reduction_factor_lets_fewer_pass(race: SweepStore) -> None:
    course = Course(race, EarlyStopping("asha", 34, METRIC, "min", reduction_factor=4.0))
    assert [course.run(0, constant(1.0)), course.run(1, constant(0.8)), course.run(2, constant(0.9))] == [None, None, 2]


def test_the_median_rule_stops_what_is_worse_than_the_median_of_the_others_means(race: SweepStore) -> None:
    course = Course(race, MEDIAN)
    assert course.run(0, constant(1.0)) is None
    assert course.run(1, constant(5.0)) is None  # one other is not enough to judge by
    assert course.run(2, constant(2.0)) is None  # 1 and 5: their median is 3
    assert course.run(3, constant(2.5)) == 2  # 1, 2 and 5
    assert course.run(4, [100, 3.0, 3.0, 3.0]) == 2  # those that were stopped count as far as they came


def test_the_median_rule_waits_for_as_many_trials_as_the_file_says(race: SweepStore) -> None:
    course = Course(race, EarlyStopping("median", 34, METRIC, "min", minimum_trials=3))
    assert [course.run(number, constant(1.0 + number)) for number in range(4)] == [None, None, None, 2]


@BOTH
def test_where_more_is_better_the_least_is_stopped(race: SweepStore, options: EarlyStopping) -> None:
    course = Course(race, EarlyStopping(options.scheduler, 34, METRIC, "max", 2.0, 2))
    assert course.run(0, constant(3.0)) is None
    assert course.run(1, constant(3.5)) is None
    assert course.run(2, constant(4.0)) is None
    assert course.run(3, constant(1.0)) == 2


def values() -> st.SearchStrategy[list[tuple[int, float | None]]]:
    """Epochs of the five trials in the order in which they come, as (trial, value). Some have no value."""
    number = st.integers(0, 4)
    value = st.one_of(st.none(), st.sampled_from([0.0, 1.0, 2.0]), st.floats(-1e6, 1e6))
    return st.lists(st.tuples(number, value), min_size=10, max_size=60)


def races() -> st.SearchStrategy[EarlyStopping]:
    return st.builds(
        EarlyStopping,
        st.sampled_from(["asha", "median"]),
        grace=st.integers(1, 100),
        metric=st.just(METRIC),
        mode=st.sampled_from(["min", "max"]),
        reduction_factor=st.sampled_from([1.5, 2.0, 4.0]),
        minimum_trials=st.integers(1, 3),
    )


def possible(course: Course, events: Sequence[tuple[int, float | None]]) -> Iterator[tuple[int, float | None]]:
    """The events that can still happen: no trial stores an epoch after its last or after it was told to stop."""
    for number, value in events:
        if not course.told(number) and len(course.store.trial(course.ids[number]).epochs()) <= EPOCHS:
            yield number, value


PROPERTY = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@PROPERTY
@given(options=races(), events=values())
def test_decisions_are_those_of_tune_s_own_scheduler(
    new_race: Callable[[], SweepStore], options: EarlyStopping, events: list[tuple[int, float | None]]
) -> None:
    course, theirs = Course(new_race(), options), tunes_own(options)
    trials = [Trial("race", stub=True, trial_id=trial_id) for trial_id in course.ids]
    for trial in trials:
        theirs.on_trial_add(None, trial)
    for number, value in possible(course, events):
        epoch = len(course.store.trial(course.ids[number]).epochs())
        stopped = course.epoch(number, value)
        if value is None or epoch in (0, EPOCHS):  # these values never count
            assert not stopped
            continue
        result = {"iteration": LENGTH * epoch, METRIC: value, "training_iteration": epoch, "done": False}
        assert stopped == (theirs.on_trial_result(CONTROLLER, trials[number], result) == TrialScheduler.STOP)
        if stopped:
            assert LENGTH * epoch >= options.grace
            assert course.decisions()[number] == {"metric": METRIC, "value": value, "iteration": LENGTH * epoch}


@PROPERTY
@given(options=races(), events=values(), point=st.integers(0, 59), unseen=st.integers(0, 4))
def test_a_driver_that_was_killed_anywhere_decides_as_one_that_lived(
    new_race: Callable[[], SweepStore],
    options: EarlyStopping,
    events: list[tuple[int, float | None]],
    point: int,
    unseen: int,
) -> None:
    """The epochs that the dead driver had not seen yet, one per worker, are in the store."""
    lived, killed = Course(new_race(), options), Course(new_race(), options)
    for number, value in possible(lived, events):
        lived.epoch(number, value)
    late: set[int] = set()
    for index, (number, value) in enumerate(possible(killed, events)):
        if point <= index < point + unseen and number not in late:
            killed.record(number, value)
            late.add(number)
            continue
        if late:
            killed.begin_again()
            late, unseen = set(), 0
        if not killed.told(number):
            killed.epoch(number, value)
    killed.begin_again()
    assert killed.decisions() == lived.decisions()


@BOTH
def test_a_decision_that_the_driver_could_not_write_is_made_again(race: SweepStore, options: EarlyStopping) -> None:
    course = Course(race, options)
    for number in range(3):
        course.run(number, constant(1.0))
    assert course.run(3, constant(9.0)) == 2
    decided = course.decisions()
    race.trial(course.ids[3]).early_stop_file.unlink()
    course.begin_again()
    assert course.decisions() == decided
    course.begin_again()
    assert course.decisions() == decided


@BOTH
def test_no_trial_is_stopped_before_the_grace_is_over(race: SweepStore, options: EarlyStopping) -> None:
    late = EarlyStopping(options.scheduler, 5 * LENGTH + 1, METRIC, "min", 2.0, 2)
    course = Course(race, late)
    for number in range(3):
        course.run(number, constant(1.0))
    assert course.run(3, constant(9.0)) == 6  # the first end of an epoch after it


@BOTH
def test_a_trial_in_its_last_epoch_is_not_stopped(tmp_path: Path, options: EarlyStopping) -> None:
    """Two budgets: where the shorter trial ends, a longer one with the same value is stopped."""
    text = RACE.replace("budget=136, ", "").replace("[1, 2, 3, 4, 5]}", "[1, 2, 3], budget: [34, 136]}")
    store = make_sweep(tmp_path, text)
    entries = store.entries()
    short, long = ([n for n, entry in enumerate(entries) if entry.epochs == epochs] for epochs in (2, EPOCHS))
    course = Course(store, options)
    for number in long[:2]:
        course.run(number, constant(1.0))
    assert course.run(short[0], constant(9.0)[:3]) is None
    assert course.run(long[2], constant(9.0)) == 2


@BOTH
def test_the_untrained_generator_is_ignored(race: SweepStore, options: EarlyStopping) -> None:
    """The value in question would be the best that this trial ever had."""
    course = Course(race, options)
    for number in range(3):
        course.run(number, constant(1.0))
    assert course.run(3, [0.0, 9.0, 9.0, 9.0]) == 2


@BOTH
def test_an_epoch_that_is_stored_again_is_ignored(race: SweepStore, options: EarlyStopping) -> None:
    """A worker that was killed computes stored epochs again, here with better values."""
    course = Course(race, options)
    for number in range(3):
        course.run(number, constant(1.0))
    course.epoch(3, 100.0)
    first = course.record(3, 9.0)
    for value in (9.0, 0.0, 0.0):
        course.stopper.observe(course.ids[3], {**first, METRIC: value})
    assert course.epoch(3, 9.0)


@BOTH
def test_an_epoch_without_the_metric_is_ignored(race: SweepStore, options: EarlyStopping) -> None:
    course = Course(race, options)
    for number in range(3):
        course.run(number, constant(1.0))
    assert [course.epoch(3, value) for value in (100.0, None, None, 9.0)] == [False, False, False, True]


@BOTH
def test_an_epoch_after_the_decision_to_stop_does_not_change_other_decisions(
    race: SweepStore, options: EarlyStopping
) -> None:
    """On a shared file system a worker may have stored another epoch before it sees the file."""
    course = Course(race, options)
    for number in range(3):
        course.run(number, constant(1.0))
    assert course.run(3, constant(9.0)) == 2
    assert course.epoch(3, 9.0)
    assert course.run(4, constant(0.5)) is None
    course.begin_again()
    assert set(course.decisions()) == {3}


@BOTH
def test_early_stopping_that_is_added_to_a_begun_sweep_stops_no_promising_trial(
    race: SweepStore, options: EarlyStopping
) -> None:
    """Early stopping, or an earlier one, was added to the sweep file only after the sweep had begun."""
    course = Course(race, options)
    for number in range(3):
        course.run(number, constant(1.0))
    for value in constant(9.0)[:5]:
        course.record(3, value)
    course.begin_again()
    course.epoch(3, 9.0)
    assert course.run(4, constant(0.5)) is None
    assert not {0, 1, 2, 4} & set(course.decisions())


def test_a_metric_that_is_not_named_is_the_one_that_tables_compare_by(plan_of: Planner) -> None:
    text = RACE.replace("mode: min", "mode: max") + "early_stopping: {scheduler: asha, grace: 34}\n"
    assert plan_of(text).early_stopping == EarlyStopping("asha", 34, METRIC, "max", 4.0, 3)


def test_a_metric_that_is_named_is_better_low_unless_its_evaluation_says_otherwise(plan_of: Planner) -> None:
    written = "early_stopping: {scheduler: median, grace: 34, minimum_trials: 5, metric: METRIC}\n"
    text = RACE.replace("mode: min", "mode: max")
    assert plan_of(text + written.replace("METRIC", "critic_loss")).early_stopping == EarlyStopping(
        "median", 34, "critic_loss", "min", 4.0, 5
    )
    assert plan_of(text + written.replace("METRIC", "critic_loss, mode: max")).early_stopping == EarlyStopping(
        "median", 34, "critic_loss", "max", 4.0, 5
    )
    digits = "base: [dataset=digits]\n" + written.replace("METRIC", "classifier_is")
    early_stopping = plan_of(digits).early_stopping
    assert early_stopping is not None
    assert early_stopping.mode == "max"


def first_told_to_stop(store: SweepStore, worker: Callable[[Entry, Queue], None]) -> Entry:
    """Four trials have ended. A worker runs the fifth, under a queue."""
    *others, last = store.entries()
    for entry in others:
        finish(store, entry, {METRIC: 0.0}, epochs=EPOCHS)
        path = store.trial(entry.trial_id).metrics_file
        path.write_text("".join(json.dumps({**json.loads(line), METRIC: 0.0}) + "\n" for line in path.open()))
    queue = Queue(store, [last.trial_id], retries=0, stopper=Stopper(store, MEDIAN))
    assert (assignment := queue.next()) is not None
    assert assignment.trial_id == last.trial_id
    worker(last, queue)
    return last


def test_a_worker_that_is_told_to_stop_writes_a_checkpoint_and_ends(race: SweepStore) -> None:
    def worker(entry: Entry, queue: Queue) -> None:
        trial = race.trial(entry.trial_id)
        state = run_trial(
            trial,
            race.cache_dir,
            should_stop=trial.early_stop_file.exists,
            on_epoch=lambda record: queue.observe(entry.trial_id, record),
        )
        assert state is State.RUNNING
        queue.ended(entry.trial_id)

    trial = race.trial(first_told_to_stop(race, worker).trial_id)
    status = trial.status()
    (only,) = status.attempts
    assert (status.state, status.error) == (State.STOPPED, None)
    assert only.ended is not None
    assert only.ended >= only.started
    assert [record["epoch"] for record in trial.epochs()] == [0, 1, 2]
    assert trial.checkpoint_file.exists()
    told = json.loads(trial.early_stop_file.read_text())
    assert told == {"metric": METRIC, "value": trial.epochs()[-1][METRIC], "iteration": 34}


def test_a_driver_that_dies_after_its_decision_leaves_a_stopped_trial(race: SweepStore) -> None:
    def worker(entry: Entry, queue: Queue) -> None:
        trial = race.trial(entry.trial_id)
        trial.write_status(Status(State.RUNNING, [attempt(ended=None, state=None)]))
        for epoch in range(3):
            queue.observe(entry.trial_id, {"epoch": epoch, "iteration": LENGTH * epoch, METRIC: 9.0})

    entry = first_told_to_stop(race, worker)
    assert prepare(race) == []
    assert race.trial(entry.trial_id).status().state is State.STOPPED


def test_a_stopped_trial_is_not_trained_again_and_no_other_sweep_takes_it(tmp_path: Path) -> None:
    store = make_sweep(tmp_path, RACE)
    stopped, done, *others = store.entries()
    finish(store, stopped, {METRIC: 9.0}, state=State.STOPPED)
    finish(store, done, {METRIC: 0.5})
    store.trial(stopped.trial_id).early_stop_file.write_text("{}")
    assert prepare(store) == [entry.trial_id for entry in others]
    assert store.trial(stopped.trial_id).status().state is State.STOPPED
    with pytest.raises(UserError, match=r"the trial already has its result \(STOPPED\)"):
        select(store, [], [stopped.trial_id], restart=True, retry_diverged=False)

    other = make_sweep(tmp_path, RACE.replace("name: race", "name: other"))
    assert prepare(other) == [entry.trial_id for entry in (stopped, *others)]
    assert not other.trial(stopped.trial_id).early_stop_file.exists()
    assert other.trial(stopped.trial_id).epochs() == []


def test_tables_say_how_many_seeds_were_stopped_and_mlflow_that_they_are_finished(
    store: SweepStore, tracking_uri: str
) -> None:
    first, second, *others = store.entries()
    finish(store, first, {METRIC: 9.0}, state=State.STOPPED)
    for entry in (second, *others):
        finish(store, entry, {METRIC: 0.5})
    remarks = {row.setting: row.remarks for row in comparison_table(store).rows if not row.reference}
    assert remarks == {first.setting: ("1 of 2 STOPPED",), second.setting: ()}
    Mirror(store, tracking_uri).finish()
    run = dump(tracking_uri, store.name)[f"{first.label} seed={first.seed}"]
    assert (run["status"], run["tags"]["state"]) == ("FINISHED", "STOPPED")


# A critic that does not learn keeps the gradients that it began with, 0.05; one that does comes near the penalty's 1.
REAL = """\
name: real
base: [dataset=mixture, evaluation=none, batch_size=8, budget=204, device=cpu]
grid: {critic.lr: [1e-3, 1e-7, 1e-8]}
early_stopping: {scheduler: asha, metric: critic_gradient_norm, mode: max, grace: 34, reduction_factor: 2}
"""


@pytest.mark.long
def test_on_a_real_ray_a_trial_that_is_not_promising_is_stopped_and_stays_so(
    tmp_path: Path, ray_resources: dict[str, float]
) -> None:
    """One trial at a time; ``test_max_failures`` has the median rule, and a second driver."""
    store = make_sweep(tmp_path, REAL)
    ran = run_trials(store, prepare(store), TuneExecutor(one_cpu_each(store, 1), secrets.token_hex(6)))
    assert ran is None
    good, *bad = (store.trial(entry.trial_id) for entry in store.entries())
    assert good.status().state is State.DONE
    assert [record["epoch"] for record in good.epochs()] == list(range(13))
    for trial in bad:
        assert trial.status().state is State.STOPPED
        assert [record["iteration"] for record in trial.epochs()] == [0, 17, 34]
        assert trial.checkpoint_file.exists()
        assert [each.ended is not None for each in trial.status().attempts] == [True]
    assert prepare(store) == []
