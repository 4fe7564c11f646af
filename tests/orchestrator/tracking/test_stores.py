"""Several runs directories in one MLflow: a store neither reads nor changes nor deletes what another one wrote."""

from __future__ import annotations

import dataclasses
import io
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from command_line import CommandLine
from hand_made import TWO_CELLS, finish, make_sweep, write_file
from mlflow_dump import Dump, dump, expected_points, points_of
from rich.console import Console

from orchestrator.driver.conclusion import conclude
from orchestrator.driver.mirroring import MirrorThread
from orchestrator.driver.options import Options
from orchestrator.errors import UserError
from orchestrator.store.states import State
from orchestrator.store.sweep import SweepStore
from orchestrator.sweep.file import read_sweep_file
from orchestrator.sweep.plan import make_plan
from orchestrator.tracking import mirror
from orchestrator.tracking.address import default_uri, quiet_client
from orchestrator.tracking.experiment import PLACE_TAG, STORE_TAG
from orchestrator.tracking.mirror import Mirror


@pytest.fixture
def shared(empty_database: Path, tmp_path: Path) -> str:
    """An MLflow that is in no runs directory. Its artifacts are where the stores that write into it have theirs."""
    shutil.copy(empty_database, tmp_path / "shared.db")
    return f"sqlite:///{tmp_path / 'shared.db'}"


def begun(folder: Path, number: float = 0.5) -> SweepStore:
    """The sweep ``hand`` in a runs directory of its own. Its first trial is done, its second has failed."""
    store = make_sweep(folder)
    first, second = store.entries()[:2]
    finish(store, first, {"exact_w1": number})
    finish(store, second, {"exact_w1": number}, state=State.FAILED, error="why")
    return store


def level(store: SweepStore, uri: str) -> str | None:
    """Brings MLflow level with a store of which everything can be read. Returns what the user should know."""
    note, problems = mirror.level(store, uri)
    assert problems == []
    return note


def experiments(uri: str) -> list[str]:
    return sorted(each.name for each in quiet_client(uri).search_experiments())


def own_title(store: SweepStore) -> str:
    return f"hand ({json.loads((store.path / 'store.json').read_text())['id']})"


def unmark(uri: str) -> None:
    """Makes a database what an older version would have left."""
    client = quiet_client(uri)
    for experiment in client.search_experiments():
        for key in (STORE_TAG, PLACE_TAG, "orchestrator.written"):
            if key in experiment.tags:
                client.delete_experiment_tag(experiment.experiment_id, key)
        for run in client.search_runs([experiment.experiment_id]):
            client.delete_tag(run.info.run_id, STORE_TAG)


def older(store: SweepStore, uri: str) -> Dump:
    """Mirrors a store as an older version did. Returns what MLflow has then."""
    level(store, uri)
    unmark(uri)
    (store.path / "store.json").unlink()
    return dump(uri, "hand")


def without_marks(runs: Dump) -> dict[str, Any]:
    return {
        name: {**run, "tags": {key: value for key, value in run["tags"].items() if key != STORE_TAG}}
        for name, run in runs.items()
    }


def test_two_runs_directories_with_one_sweep_name_do_not_touch_each_other(
    tmp_path: Path, shared: str, command_line: CommandLine
) -> None:
    """Not even by a restart, and both stay level."""
    one, two = begun(tmp_path / "one"), begun(tmp_path / "two", 0.25)
    assert level(one, shared) is None
    before = dump(shared, "hand")
    words = ["--runs-dir", two.runs_dir, "--tracking-uri", shared]
    for _ in range(2):
        code, out, errors = command_line("sync", "hand", *words)
        assert (code, errors) == (0, "")
        assert dump(shared, "hand") == before
    assert out.splitlines()[0] == "MLflow is up to date with 'hand'."
    assert f"MLflow already has 'hand' of another store ({_place(one)}), which stays as it is" in out
    assert f"experiment is '{own_title(two)}'" in out
    assert "--name" in out

    for store, title in ((one, "hand"), (two, own_title(two))):
        runs = dump(shared, title)
        for entry in store.entries()[:2]:
            expected = expected_points(store.trial(entry.trial_id))
            assert points_of(runs[f"{entry.label} seed={entry.seed}"]) == expected

    second = two.entries()[1]
    two.trial(second.trial_id).restart()
    level(two, shared)
    assert f"{second.label} seed={second.seed}" not in dump(shared, own_title(two))
    assert dump(shared, "hand") == before


def _place(store: SweepStore) -> str:
    place = json.loads((store.path / "store.json").read_text())["places"][-1]
    assert str(store.path) in place
    return str(place)


def test_each_store_has_its_own_pages(tmp_path: Path, shared: str, command_line: CommandLine) -> None:
    one, two = begun(tmp_path / "one"), begun(tmp_path / "two")
    client = quiet_client(shared)
    seen = {}
    for store in (one, two):
        level(store, shared)
    monkey = pytest.MonkeyPatch()
    with monkey.context() as patch:
        patch.setattr("os.execv", lambda *_: None)
        patch.setattr("orchestrator.tracking.ui._check_port", lambda _: None)
        for store, title in ((one, "hand"), (two, own_title(two))):
            out = command_line("ui", "hand", "--runs-dir", store.runs_dir, "--tracking-uri", shared)[1]
            experiment = client.get_experiment_by_name(title)
            assert experiment is not None
            assert f"/#/experiments/{experiment.experiment_id}/" in out
            seen[title] = experiment.experiment_id
    assert len(set(seen.values())) == 2


def test_the_end_of_a_sweep_tells_that_another_store_has_its_name(tmp_path: Path, shared: str) -> None:
    one, two = begun(tmp_path / "one"), begun(tmp_path / "two")
    level(one, shared)
    console = Console(file=io.StringIO(), width=400)
    assert conclude(two, MirrorThread(two, shared), console, Options(shared)) == 1
    assert isinstance(console.file, io.StringIO)
    told = console.file.getvalue()
    assert f"MLflow already has 'hand' of another store ({_place(one)}), which stays as it is" in told
    assert own_title(two) in told
    assert "MLflow is behind" not in told


def test_a_copy_is_not_the_same_store_once_both_write(tmp_path: Path, shared: str) -> None:
    one = begun(tmp_path / "one")
    level(one, shared)
    before = dump(shared, "hand")
    shutil.copytree(one.runs_dir, tmp_path / "two" / "runs")
    two = SweepStore(tmp_path / "two" / "runs", "hand")
    finish(two, two.entries()[2], {"exact_w1": 0.25})
    assert "of another store" in str(level(two, shared))
    assert dump(shared, "hand") == before
    assert len(dump(shared, own_title(two))) == 4
    assert level(one, shared) is None
    assert dump(shared, "hand") == before


def test_a_copy_on_another_machine_is_found_out_in_mlflow(
    tmp_path: Path, shared: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first of the two that writes keeps the experiment, and the other one gets its own."""
    one = begun(tmp_path / "one")
    level(one, shared)
    away = tmp_path / "away"
    one.runs_dir.rename(away)
    shutil.copytree(away, tmp_path / "two")
    two = SweepStore(tmp_path / "two", "hand")
    with monkeypatch.context() as patch:
        patch.setattr("socket.gethostname", lambda: "elsewhere")
        assert level(two, shared) is None
    away.rename(one.runs_dir)
    shutil.rmtree(two.runs_dir)  # this machine cannot see it
    before = dump(shared, "hand")
    note = level(one, shared)
    assert f"of another store (elsewhere:{two.path})" in str(note)
    assert dump(shared, "hand") == before
    assert len(dump(shared, own_title(one))) == 3


def test_a_copied_runs_directory_goes_on_in_its_own_database(tmp_path: Path, tracking_uri: str) -> None:
    store = begun(tmp_path)
    level(store, tracking_uri)
    before = dump(tracking_uri, "hand")
    shutil.copytree(store.runs_dir, tmp_path / "copy")
    copy = SweepStore(tmp_path / "copy", "hand")
    uri = default_uri(copy.runs_dir)
    assert level(copy, uri) is None
    assert dump(uri, "hand").keys() == before.keys()
    assert experiments(uri) == ["Default", "hand"]
    files = [Path(one) for one in (tmp_path / "copy" / "mlflow-artifacts").rglob("*.png")]
    assert len(files) >= 4
    assert dump(tracking_uri, "hand") == before


def test_a_moved_directory_is_the_same_store_in_a_shared_mlflow(
    tmp_path: Path, shared: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the machine is called, as for a container."""
    store = begun(tmp_path / "one")
    level(store, shared)
    for place in ("two", "three", "two"):
        moved = SweepStore(store.runs_dir.rename(tmp_path / place), "hand")
        monkeypatch.setattr("socket.gethostname", lambda place=place: f"container-{place}")
        assert level(moved, shared) is None
        store = moved
    assert experiments(shared) == ["Default", "hand"]


def test_runs_of_an_older_version_belong_to_the_store_that_has_their_attempts(tmp_path: Path, shared: str) -> None:
    """Also after a restart. Nothing is doubled, and another store does not take them."""
    one, two = begun(tmp_path / "one"), begun(tmp_path / "two", 0.25)
    before = older(one, shared)
    assert "of another store" in str(level(two, shared))
    assert dump(shared, "hand") == before
    second = one.entries()[1]
    one.trial(second.trial_id).restart()
    finish(one, second, {"exact_w1": 0.125})
    status = one.trial(second.trial_id).status()
    one.trial(second.trial_id).write_status(dataclasses.replace(status, restarts=1))
    assert level(one, shared) is None
    after = dump(shared, "hand")
    first = one.entries()[0]
    name, other = (f"{entry.label} seed={entry.seed}" for entry in (first, second))
    assert without_marks(after)[name] == without_marks(before)[name]
    assert after["hand"]["id"] == before["hand"]["id"]
    assert points_of(after[other]) == expected_points(one.trial(second.trial_id))
    assert {run["tags"][STORE_TAG] for run in after.values()} == {own_title(one)[6:-1]}


def test_a_directory_of_an_older_version_that_was_moved_is_taken_over(tmp_path: Path, tracking_uri: str) -> None:
    store = begun(tmp_path)
    before = older(store, tracking_uri)
    moved = SweepStore(store.runs_dir.rename(tmp_path / "moved"), "hand")
    assert level(moved, default_uri(moved.runs_dir)) is None
    assert dump(default_uri(moved.runs_dir), "hand").keys() == before.keys()


def test_a_store_that_has_lost_its_identity_touches_nothing(tmp_path: Path, shared: str) -> None:
    store = begun(tmp_path / "one")
    level(store, shared)
    before = dump(shared, "hand")
    (store.path / "store.json").write_text("{")
    assert "of another store" in str(level(store, shared))
    assert dump(shared, "hand") == before


@pytest.mark.parametrize("with_runs", [True, False])
def test_an_experiment_that_somebody_made_by_hand_stays_as_it_is(tmp_path: Path, shared: str, with_runs: bool) -> None:
    client = quiet_client(shared)
    theirs = client.create_experiment("hand", artifact_location="s3://somewhere", tags={"whose": "theirs"})
    run = client.create_run(theirs, tags={"whose": "theirs"}).info.run_id if with_runs else None
    store = begun(tmp_path)
    assert "MLflow already has 'hand' of another store, which stays as it is" in str(level(store, shared))
    still = client.get_experiment(theirs)
    assert (still.name, still.lifecycle_stage, still.tags["whose"]) == ("hand", "active", "theirs")
    assert STORE_TAG not in still.tags
    assert [each.info.run_id for each in client.search_runs([theirs])] == ([run] if with_runs else [])
    assert len(dump(shared, own_title(store))) == 3


def test_an_experiment_without_its_mark_is_known_by_its_runs(tmp_path: Path, shared: str) -> None:
    store = begun(tmp_path)
    level(store, shared)
    before = dump(shared, "hand")
    client = quiet_client(shared)
    experiment = client.get_experiment_by_name("hand")
    assert experiment is not None
    for key in (STORE_TAG, PLACE_TAG):
        client.delete_experiment_tag(experiment.experiment_id, key)
    assert level(store, shared) is None
    assert dump(shared, "hand") == before


def test_an_experiment_of_somebody_else_that_was_deleted_stays_deleted(tmp_path: Path, shared: str) -> None:
    one, two = begun(tmp_path / "one"), begun(tmp_path / "two")
    level(one, shared)
    client = quiet_client(shared)
    theirs = client.get_experiment_by_name("hand")
    assert theirs is not None
    client.delete_experiment(theirs.experiment_id)
    assert "of another store" in str(level(two, shared))
    still = client.get_experiment(theirs.experiment_id)
    assert (still.name, still.lifecycle_stage) == ("hand", "deleted")


# --- MLflow's own experiment ----------------------------------------------------------------------------------------


def test_the_name_of_mlflows_own_experiment_is_reserved(tmp_path: Path) -> None:
    path = write_file(tmp_path, TWO_CELLS.replace("name: hand", "name: Default"))
    with pytest.raises(UserError, match=r"sweep.yaml:1: .*'Default' is taken by MLflow's own experiment"):
        read_sweep_file(path)
    path = write_file(tmp_path, TWO_CELLS.replace("name: hand\n", ""), "Default.yaml")
    with pytest.raises(UserError, match="'Default' is taken by MLflow's own experiment"):
        read_sweep_file(path)
    path = write_file(tmp_path, TWO_CELLS)
    with pytest.raises(UserError, match="--name: 'Default' is taken by MLflow's own experiment"):
        make_plan(read_sweep_file(path), (), "Default")


def test_an_older_sweep_of_that_name_leaves_mlflows_own_experiment_alone(tmp_path: Path, tracking_uri: str) -> None:
    store = begun(tmp_path)
    default = SweepStore(Path(shutil.copytree(store.path, tmp_path / "runs" / "Default")).parent, "Default")
    assert default.name == "Default"
    client = quiet_client(tracking_uri)
    before = client.get_experiment("0")
    Mirror(default, tracking_uri).finish()
    after = client.get_experiment("0")
    assert (after.name, after.lifecycle_stage, after.tags) == (before.name, before.lifecycle_stage, before.tags)
    assert client.search_runs(["0"]) == []
    assert len(experiments(tracking_uri)) == 2
