"""The same promises for a runs directory in a folder and in an object store, on a real S3 server.

Machines that share nothing but the network are copies of their own, in one process or several.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from command_line import CommandLine, wait_until
from hand_made import make_sweep, plan_file, write_file
from object_stores import BUCKET, ENVIRONMENT, Network, Place, keys_asked_for, s3_server
from pretended_growth import RACED, decided, drive, grown_sweep, steps
from small_trials import assert_equal_to_the_bit, contents, run

from orchestrator import load
from orchestrator.driver.preparation import prepare
from orchestrator.errors import UserError
from orchestrator.remote import lease, news, object_store
from orchestrator.remote.replica import Replica
from orchestrator.screen.status import sweep_status
from orchestrator.store.identity import known_identity
from orchestrator.store.lock import driver_lock
from orchestrator.store.runs import sweep_names
from orchestrator.store.states import State
from orchestrator.store.stopping import stop_driver
from orchestrator.store.sweep import SweepStore
from orchestrator.store.trial import CHECKPOINT_FILES, TrialStore
from orchestrator.tracking import mirror
from orchestrator.trial.run import run_trial
from orchestrator.trial.workplace import trial_at_hand

pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]

SWEEP = """\
name: small
base:
  - dataset=digits
  - network=mlp
  - "network.generator_widths=[16]"
  - "network.critic_widths=[16]"
  - evaluation=none
  - device=cpu
  - checkpoint_epochs=1
  - budget=50
grid: {penalty.weight: [1, 2]}
"""
WORKER = """\
import sys, time
from orchestrator.store.runs import runs_at
from orchestrator.trial.run import run_trial
from orchestrator.trial.workplace import trial_at_hand
with trial_at_hand(runs_at(sys.argv[1]), "small", sys.argv[2]) as (trial, cache, should_stop):
    run_trial(trial, cache, should_stop=should_stop, on_epoch=lambda record: time.sleep(600 * (record["epoch"] == 2)))
"""
"""A worker that has just stored an epoch and waits to be killed."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with s3_server(tmp_path_factory.mktemp("s3") / "log.txt") as port:
        yield port


@pytest.fixture
def network(server: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[Network]:
    """The network between the server and this process with its children."""
    network = Network(server)
    for name, value in {**ENVIRONMENT, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{network.port}"}.items():
        monkeypatch.setenv(name, value)
    yield network
    network.close()


numbers = itertools.count()


@pytest.fixture
def bucket(network: Network, tmp_path: Path) -> Place:
    return Place(tmp_path, f"s3://{BUCKET}/{next(numbers)}/runs")


@pytest.fixture(params=["a folder", "an object store"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    return Place(tmp_path) if request.param == "a folder" else request.getfixturevalue("bucket")


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(object_store, "PATIENCE_SECONDS", 0.5)
    monkeypatch.setitem(object_store.S3_OPTIONS, "retries", {"max_attempts": 0})


def planned(place: Place, machine: str = "one", text: str = SWEEP, *arguments: str) -> SweepStore:
    """The sweep as a machine that has planned it sees it."""
    folder = place.copy_of(f"files of {machine}")
    plan = plan_file(write_file(folder, text), *arguments)
    store = SweepStore(place.seen_from(machine), plan.name)
    store.make()
    store.write_plan(plan)
    return store


def level(place: Place, machine: str, name: str = "small") -> SweepStore:
    """The sweep with its checkpoints, as a machine sees it now."""
    return SweepStore.open(place.seen_from(machine), name, CHECKPOINT_FILES)


def work(place: Place, machine: str, trial_id: str, after: int | None = None, **options: Any) -> State:
    """Runs a trial as a worker does. With ``after`` it is told to stop once it has asked that many times."""
    asked = itertools.count(1)
    with trial_at_hand(place.seen_from(machine), "small", trial_id) as (trial, cache, should_stop):
        told = options.pop("should_stop", lambda: after is not None and next(asked) > after)
        return run_trial(trial, cache, should_stop=lambda: should_stop() or told(), **options)


@pytest.fixture(scope="module")
def twin(tmp_path_factory: pytest.TempPathFactory) -> TrialStore:
    """The first trial of the sweep, run in one go in a folder."""
    store = make_sweep(tmp_path_factory.mktemp("twin"), SWEEP)
    trial = store.trial(store.entries()[0].trial_id)
    assert run(trial) is State.DONE
    return trial


# --- the same on both -----------------------------------------------------------------------------------------------


def test_what_one_machine_plans_others_see(place: Place) -> None:
    store = planned(place)
    (other,) = [level(place, "two")]
    assert other.entries() == store.entries()
    assert [other.trial(entry.trial_id).config() for entry in other.entries()] == [
        store.trial(entry.trial_id).config() for entry in store.entries()
    ]
    assert sweep_names(place.seen_from("three")) == ["small"]
    with pytest.raises(UserError, match="no sweep called 'smal'.*'small'"):
        level(place, "two", "smal")


def test_a_trial_stopped_on_one_machine_goes_on_on_another_to_the_bit(place: Place, twin: TrialStore) -> None:
    planned(place)
    assert work(place, "one", twin.trial_id, after=30) is State.RUNNING
    assert level(place, "two").trial(twin.trial_id).status().attempts[0].resumed_at == 0
    assert work(place, "two", twin.trial_id) is State.DONE
    trial = level(place, "three").trial(twin.trial_id)
    assert_equal_to_the_bit(trial, twin)
    assert [attempt.resumed_at for attempt in trial.status().attempts] == [0, 30]


def test_a_killed_worker_s_trial_goes_on_elsewhere_to_the_bit(place: Place, twin: TrialStore) -> None:
    store = planned(place)
    runs = place.url or str(store.runs_dir)
    environment = {**os.environ, "XDG_CACHE_HOME": str(place.copy_of("killed"))}
    with subprocess.Popen([sys.executable, "-c", WORKER, runs, twin.trial_id], env=environment) as process:
        seen = SweepStore(place.seen_from("two"), "small")
        wait_until(
            lambda: process.poll() is not None or len(level_of(seen, twin.trial_id).epochs()) > 1, 200, pause=0.1
        )
        process.kill()
    assert work(place, "two", twin.trial_id) is State.DONE
    assert_equal_to_the_bit(level(place, "three").trial(twin.trial_id), twin)


def level_of(store: SweepStore, trial_id: str) -> TrialStore:
    """A running trial as the driver's machine sees it."""
    trial = store.trial(trial_id)
    if store.replica is not None:
        store.replica.pull(store.replica.key(trial.path))
    return trial


def test_a_worker_that_was_given_up_for_lost_writes_nothing_more(place: Place, twin: TrialStore) -> None:
    planned(place)
    left: dict[str, bytes] = {}

    def taken_over() -> bool:
        if not left:
            other = level(place, "two").trial(twin.trial_id)
            status = other.status()
            status.attempts.append(dataclasses.replace(status.attempts[-1], started=time.time(), host="another"))
            other.write_status(status)
            left.update(contents(level(place, "three").trial(twin.trial_id).path, "log.txt"))
        return False

    asked = itertools.count(1)
    told = lambda: next(asked) > 30 and taken_over()  # noqa: E731
    assert work(place, "one", twin.trial_id, should_stop=told) is State.RUNNING
    assert left
    assert contents(level(place, "four").trial(twin.trial_id).path, "log.txt") == left


def test_one_machine_drives_at_a_time(place: Place) -> None:
    store, other = planned(place), SweepStore(place.seen_from("two"), "small")
    other.make()
    with driver_lock(store):
        told = sweep_status(SweepStore.open(place.seen_from("three"), "small"))["driver"]
        assert told == {"host": socket.gethostname(), "pid": os.getpid(), "alive": True}
        refusal = rf"'small' is already running \(process {os.getpid()} on \S+\); stop it with: orchestrator stop small"
        with pytest.raises(UserError, match=refusal), driver_lock(other):
            pass
    with driver_lock(other), pytest.raises(UserError, match="is already running"), driver_lock(store):
        pass


def test_a_stop_is_heard_by_workers_everywhere_and_is_over_with_the_next_driver(
    place: Place, twin: TrialStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(news, "FOLLOW_SECONDS", 0.3)
    store = planned(place)
    with store.exchanging_news():
        worker = threading.Thread(target=work, args=(place, "two", twin.trial_id), kwargs={"on_epoch": slowly})
        worker.start()
        store.stop_file.touch()
        worker.join(100)
        assert not worker.is_alive()
    assert level(place, "three").trial(twin.trial_id).status().state is State.RUNNING  # a driver makes it PENDING
    assert len(level(place, "three").trial(twin.trial_id).epochs()) < len(twin.epochs())
    with driver_lock(store):
        prepare(store)
    assert work(place, "two", twin.trial_id) is State.DONE
    assert_equal_to_the_bit(level(place, "three").trial(twin.trial_id), twin)


def test_a_stop_from_another_machine_waits_for_the_driver_and_is_made_again_if_it_is_deleted(
    bucket: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A driver deletes an earlier request right after its name is known, so one of that moment may be lost."""
    monkeypatch.setattr("orchestrator.store.stopping.PAUSE_OF_OBJECT_STORE", 0.1)
    store, other = planned(bucket), SweepStore.open(bucket.seen_from("two"), "small")
    assert store.replica is not None
    asked = store.replica.key(store.stop_file)
    store.replica.write(asked, b"")  # of an earlier driver
    stop = threading.Thread(target=stop_driver, args=[other])
    with driver_lock(store):
        assert not store.asked_to_stop()
        stop.start()
        wait_until(store.asked_to_stop)
        store.replica.delete(asked)
        wait_until(store.asked_to_stop)
        assert stop.is_alive()
    stop.join(100)
    assert not stop.is_alive()
    with pytest.raises(UserError, match="nothing to stop"):
        stop_driver(other)


def slowly(record: dict[str, Any]) -> None:
    """The outage is longer than the time after which a worker looks again."""
    time.sleep(2 * news.FOLLOW_SECONDS)


def test_a_sweep_planned_again_keeps_what_was_done_elsewhere(place: Place, twin: TrialStore) -> None:
    planned(place)
    work(place, "two", twin.trial_id)
    again = SweepStore(place.seen_from("three"), "small")
    again.make()
    with driver_lock(again):
        again.write_plan(plan_file(write_file(place.copy_of("files of three"), SWEEP)))
        todo = prepare(again)
    assert todo == [entry.trial_id for entry in again.entries() if entry.trial_id != twin.trial_id]
    assert_equal_to_the_bit(level(place, "four").trial(twin.trial_id), twin)


def test_a_driver_makes_lost_what_a_dead_one_left_running(place: Place, twin: TrialStore) -> None:
    planned(place)
    work(place, "one", twin.trial_id, after=30)
    other = SweepStore(place.seen_from("two"), "small")
    other.make()
    with driver_lock(other):
        assert twin.trial_id in prepare(other)
    assert level(place, "three").trial(twin.trial_id).status().state is State.LOST


def test_a_restart_keeps_what_was_there_and_begins_anew(place: Place, twin: TrialStore) -> None:
    planned(place)
    work(place, "one", twin.trial_id, after=30)
    there = contents(level(place, "two").trial(twin.trial_id).path, "log.txt", "config.yaml", "status.json")
    level(place, "two").trial(twin.trial_id).restart()
    trial = level(place, "three").trial(twin.trial_id)
    assert contents(trial.path / "attempts" / "1", "log.txt", "status.json") == there
    assert (trial.epochs(), trial.status().state, trial.status().restarts) == ([], State.PENDING, 1)
    assert work(place, "one", twin.trial_id) is State.DONE
    assert_equal_to_the_bit(level(place, "three").trial(twin.trial_id), twin)


def test_a_finished_trial_is_copied_from_another_machine_s_sweep(place: Place, twin: TrialStore) -> None:
    planned(place)
    work(place, "one", twin.trial_id)
    store = planned(place, "two", SWEEP.replace("name: small", "name: other"))
    assert prepare(store) == [entry.trial_id for entry in store.entries() if entry.trial_id != twin.trial_id]
    trial = level(place, "three", "other").trial(twin.trial_id)
    assert trial.status().copied_from == "small"
    assert_equal_to_the_bit(trial, twin)


def test_a_plan_that_grows_on_one_machine_grows_on_on_another(place: Place) -> None:
    store = planned(place, "one", RACED)
    assert drive(store, steps, deaths=20)[0] is None
    there = level(place, "two", "grown")
    assert (decided(there), there.entries()) == (decided(store), store.entries())
    assert drive(there, steps)[0] == 0
    undisturbed, plan = grown_sweep(place.copy_of("undisturbed"), RACED)
    assert drive(undisturbed, steps, plan=plan)[0] == 0
    assert decided(level(place, "three", "grown")) == decided(undisturbed)


def test_a_longer_budget_goes_on_from_another_machine_s_trial(place: Place, twin: TrialStore) -> None:
    planned(place)
    work(place, "one", twin.trial_id)
    longer = SWEEP.replace("name: small", "name: longer\ncontinue_from: small").replace("budget=50", "budget=90")
    store = planned(place, "two", longer)
    prepare(store)
    entry = store.entries()[0]
    trial = level(place, "three", "longer").trial(entry.trial_id)
    assert trial.status().continued_from == {"sweep": "small", "trial_id": twin.trial_id, "iteration": 50}
    with trial_at_hand(place.seen_from("four"), "longer", entry.trial_id) as (here, cache, _):
        assert run_trial(here, cache) is State.DONE
    attempts = level(place, "three", "longer").trial(entry.trial_id).status().attempts
    assert [attempt.resumed_at for attempt in attempts] == [50]


def test_space_is_given_back_wherever_the_checkpoints_are(
    place: Place, twin: TrialStore, command_line: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = planned(place)
    work(place, "one", twin.trial_id)
    monkeypatch.setenv("XDG_CACHE_HOME", str(place.copy_of("two")))
    runs = place.url or str(store.runs_dir)
    size = level(place, "three").trial(twin.trial_id).previous_checkpoint_file.stat().st_size
    code, out, _ = command_line("prune", "small", "--dry-run", "--runs-dir", runs)
    path = f"{runs}/small/trials/{twin.trial_id}/checkpoint-previous.pt"
    assert (code, out.split()[2]) == (0, path)
    assert command_line("prune", "small", "--runs-dir", runs)[0] == 0
    trial = level(place, "four").trial(twin.trial_id)
    assert [file.name for file in trial.path.glob("*.pt")] == ["checkpoint.pt"]
    assert size > 1000
    assert_equal_to_the_bit(trial, twin)


def test_commands_that_read_say_the_same_everywhere(
    place: Place, twin: TrialStore, command_line: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = planned(place)
    work(place, "one", twin.trial_id)
    runs = place.url or str(store.runs_dir)
    said = set()
    for machine in ("two", "three"):
        monkeypatch.setenv("XDG_CACHE_HOME", str(place.copy_of(machine)))
        code, out, _ = command_line("status", "small", "--json", "--runs-dir", runs)
        assert code == 0
        states = [trial["state"] for trial in json.loads(out)["trials"]]
        code, table, _ = command_line("export", "small", "--metrics", "critic_loss", "--runs-dir", runs)
        assert code == 0
        said.add((tuple(states), table))
    assert len(said) == 1
    assert sorted(states) == ["DONE", "PENDING"]
    assert list(load(f"{runs}/small").trials["state"]) == states


# --- an object store ------------------------------------------------------------------------------------------------


def test_what_cannot_be_a_runs_directory_is_refused_with_the_reason(
    command_line: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, closed_port: int
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for name, value in {**ENVIRONMENT, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{closed_port}"}.items():
        monkeypatch.setenv(name, value)
    file = write_file(tmp_path, SWEEP)
    for runs, told in {
        "s3://bucket/runs": "--runs-dir s3://bucket/runs: the object store cannot be reached: ",
        "s4://bucket/runs": "--runs-dir s4://bucket/runs: Protocol not known: s4",
    }.items():
        code, out, error = command_line("sweep", file, "--offline", "--runs-dir", runs)
        assert (code, out) == (2, "")
        assert error.startswith(f"orchestrator: {told}")
    code, _, error = command_line("train", "--runs-dir", "s3://bucket/runs")
    assert (code, error) == (
        2,
        "orchestrator: --runs-dir s3://bucket/runs: this command needs a folder on this machine\n",
    )


def test_a_bucket_that_is_not_there_is_said(
    command_line: CommandLine, bucket: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    runs = str(bucket.url).replace(BUCKET, "bucked")
    code, _, error = command_line("sweep", write_file(tmp_path, SWEEP), "--offline", "--runs-dir", runs)
    assert code == 2
    assert error == f"orchestrator: {runs}/small cannot be read and written: The specified bucket does not exist\n"


@pytest.mark.parametrize("known", [False, True], ids=["an unknown key", "a wrong secret"])
def test_who_has_other_keys_is_told_so_before_anything_starts(
    command_line: CommandLine, bucket: Place, server: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, known: bool
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with keys_asked_for(server) as key:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", key if known else "unknown")
        file = write_file(tmp_path, SWEEP)
        code, out, error = command_line("sweep", file, "--offline", "--runs-dir", bucket.url)
    assert (code, out) == (2, "")
    assert error.startswith(f"orchestrator: --runs-dir {bucket.url}: the object store refused access. Check AWS_A")
    assert error.count("\n") == 1
    assert sweep_names(bucket.seen_from("two")) == []


def test_mlflow_wants_a_server_where_runs_are_in_an_object_store(
    command_line: CommandLine, bucket: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    code, _, error = command_line("sweep", write_file(tmp_path, SWEEP), "--runs-dir", bucket.url)
    assert code == 2
    assert (
        "MLflow's SQLite file cannot lie in an object store; give the address of an MLflow server with --track" in error
    )


def test_a_store_is_the_same_in_mlflow_from_every_machine(
    place: Place, twin: TrialStore, empty_database: Path, tmp_path: Path
) -> None:
    planned(place)
    work(place, "one", twin.trial_id)
    shutil.copy(empty_database, tmp_path / "shared.db")
    ids = set()
    for machine in ("two", "three"):
        store = SweepStore.open(place.seen_from(machine), "small")
        assert mirror.level(store, f"sqlite:///{tmp_path / 'shared.db'}") == (None, [])
        known = known_identity(place.seen_from("four"), "small")
        assert known is not None
        ids.add(known.id)
    assert len(ids) == 1


def test_an_outage_of_seconds_costs_nothing(bucket: Place, network: Network, twin: TrialStore) -> None:
    planned(bucket)
    outages = []

    def cut(record: dict[str, Any]) -> None:
        if record["epoch"] == 1:
            network.cut()
            outages.append(threading.Timer(4, network.mend))
            outages[0].start()

    assert work(bucket, "one", twin.trial_id, on_epoch=cut) is State.DONE
    assert outages
    assert_equal_to_the_bit(level(bucket, "two").trial(twin.trial_id), twin)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("requests", [2, 10, 13, 16, 20])
def test_wherever_the_network_goes_for_good_another_machine_goes_on_to_the_bit(
    bucket: Place, network: Network, twin: TrialStore, requests: int
) -> None:
    """What was uploaded until then is what a directory would have held at some moment."""
    planned(bucket)
    network.cut(after=requests)
    try:
        work(bucket, "one", twin.trial_id)
    except OSError:
        assert network.is_cut
    network.mend()
    status = level(bucket, "two").trial(twin.trial_id).status()
    assert status.state in (State.PENDING, State.RUNNING, State.DONE)
    if status.state is not State.DONE:
        assert work(bucket, "two", twin.trial_id) is State.DONE
    assert_equal_to_the_bit(level(bucket, "three").trial(twin.trial_id), twin)


def test_slow_answers_cost_time_and_nothing_else(bucket: Place, network: Network, twin: TrialStore) -> None:
    planned(bucket)
    network.delay = 0.1
    assert work(bucket, "one", twin.trial_id) is State.DONE
    network.delay = 0.0
    assert_equal_to_the_bit(level(bucket, "two").trial(twin.trial_id), twin)


def test_a_second_command_asks_for_what_is_new_alone(bucket: Place, network: Network, twin: TrialStore) -> None:
    planned(bucket)
    work(bucket, "one", twin.trial_id)
    SweepStore.open(bucket.seen_from("two"), "small")
    before = network.requests
    SweepStore.open(bucket.seen_from("two"), "small")
    assert network.requests - before <= 2


def test_a_file_changed_here_and_never_published_is_undone(bucket: Place, twin: TrialStore) -> None:
    planned(bucket)
    trial = level(bucket, "two").trial(twin.trial_id)
    before = contents(trial.path)
    (trial.path / "status.json").write_text("{}")
    (trial.path / "stray.txt").write_text("never published")
    assert contents(level(bucket, "two").trial(twin.trial_id).path) == before


def driver(number: int) -> dict[str, Any]:
    """What a lease says of its holder."""
    return {"host": "one", "machine": "its boot", "pid": number, "started": 1}


def test_of_many_that_want_a_sweep_at_once_one_gets_it(bucket: Place) -> None:
    def contend(number: int) -> bool:
        try:
            lease.take(Replica(str(bucket.url), bucket.copy_of(str(number))), "small", driver(number), lambda _: False)
        except lease.Held:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(contend, range(8))) == [False] * 7 + [True]


def test_a_driver_that_slept_while_another_took_its_sweep_is_told(
    bucket: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = (bucket.seen_from(machine) for machine in ("one", "two"))
    assert isinstance(one, Replica)
    assert isinstance(two, Replica)
    sleeper = lease.take(one, "small", driver(1), lambda _: False)
    assert sleeper.beat()
    with pytest.raises(lease.Held):
        lease.take(two, "small", driver(2), lambda _: False)
    with monkeypatch.context() as patch:
        patch.setattr(lease, "STALE_SECONDS", 1.0)
        wait_until(lambda: lease.holder(two, "small") is None, pause=0.2)
        other = lease.take(two, "small", driver(2), lambda _: False)
    assert not sleeper.beat()
    assert other.beat()
    sleeper.release()
    assert lease.holder(one, "small") == driver(2)
    other.release()
    assert lease.holder(one, "small") is None
    assert not sleeper.beat()


def test_a_dead_process_of_this_machine_does_not_hold_a_sweep(bucket: Place) -> None:
    one = bucket.seen_from("one")
    assert isinstance(one, Replica)
    lease.take(one, "small", driver(1), lambda _: False)
    assert lease.take(one, "small", driver(2), lambda holder: holder == driver(1)).beat()


def test_machines_share_their_caches_and_arrays_appear_whole(bucket: Place) -> None:
    one, two = (bucket.seen_from(machine) for machine in ("one", "two"))
    assert isinstance(one, Replica)
    assert isinstance(two, Replica)
    ours, theirs = one.copy / "cache", two.copy / "cache"
    for folder in (ours / "images", theirs):
        folder.mkdir(parents=True)
    (ours / "features.safetensors").write_bytes(b"features")
    (ours / "features.safetensors.lock").touch()
    (ours / "images" / "train.npy").write_bytes(b"pixels")
    one.share(ours)
    two.share(theirs)
    assert contents(theirs) == {"features.safetensors": b"features"}  # half a folder of arrays is none
    (ours / "images" / "about.json").write_text("{}")
    (theirs / "classifier.safetensors").write_bytes(b"weights")
    one.share(ours)
    two.share(theirs)
    one.share(ours)
    assert contents(theirs) == contents(ours, "features.safetensors.lock")
    assert sorted(contents(theirs)) == [
        "classifier.safetensors",
        "features.safetensors",
        "images/about.json",
        "images/train.npy",
    ]


def test_what_a_killed_worker_left_on_its_machine_goes_with_the_next(bucket: Place, twin: TrialStore) -> None:
    planned(bucket)
    workers = bucket.copy_of("one") / ".workers"
    (workers / "999999999-1-1" / "small").mkdir(parents=True)
    assert work(bucket, "one", twin.trial_id) is State.DONE
    assert list(workers.iterdir()) == []
