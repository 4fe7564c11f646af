"""MLflow as a mirror of the store: it has everything exactly once, whenever and however often it is synchronised."""

from __future__ import annotations

import contextlib
import json
import shutil
import sqlite3
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from command_line import CommandLine
from grown_sweeps import HEAD, SEARCH
from grown_sweeps import plan as plan_grown
from grown_sweeps import run as end_trials
from hand_made import POINTS, TWO_CELLS, attempt, finish, make_sweep
from mlflow_dump import Dump, dump, expected_files, expected_points, files_of, points_of

from orchestrator.errors import UserError
from orchestrator.results.comparison import comparison_table
from orchestrator.results.formats import write_tables
from orchestrator.results.verdict_text import answer
from orchestrator.store.epochs import EpochLog
from orchestrator.store.states import State, Status
from orchestrator.store.sweep import Entry, SweepStore
from orchestrator.tracking.address import check_uri, default_uri, quiet_client
from orchestrator.tracking.mirror import MIRRORED_TAG, VERDICT_TAG, Mirror, level
from orchestrator.tracking.views import WRITTEN_TAG, view_tags


def name_of(entry: Entry) -> str:
    return f"{entry.label} seed={entry.seed}"


def flat(values: dict[str, Any], prefix: str = "") -> dict[str, str]:
    found = {}
    for key, value in values.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": str(value)}
    return found


@pytest.fixture
def finished(store: SweepStore) -> SweepStore:
    """The four trials of ``hand`` at their ends, one of them diverged."""
    for number, entry in enumerate(store.entries()):
        state = State.DIVERGED if number == 3 else State.DONE
        error = "a loss is not finite" if number == 3 else None
        finish(store, entry, {"exact_w1": 0.5 + number}, state=state, error=error, epochs=2 + number)
    write_tables(store, comparison_table(store))
    return store


def test_a_sweep_is_one_parent_with_a_child_for_each_trial(finished: SweepStore, tracking_uri: str) -> None:
    Mirror(finished, tracking_uri).finish()
    runs = dump(tracking_uri, "hand")
    parent = runs.pop("hand")
    assert set(runs) == {name_of(entry) for entry in finished.entries()}
    attempts = [finished.trial(entry.trial_id).status().attempts[0] for entry in finished.entries()]
    assert parent["status"] == "FINISHED"
    assert parent["times"] == (int(attempts[0].started * 1000), int(attempts[-1].ended * 1000))
    assert parent["tags"]["mlflow.note.content"] == "two cells"
    assert parent["tags"]["mlflow.parentRunId"] == "none"
    assert [path for path, _ in parent["artifacts"]] == ["hand.csv", "hand.md", "hand.tex", "sweep.yaml"]
    for number, entry in enumerate(finished.entries()):
        run, trial = runs[name_of(entry)], finished.trial(entry.trial_id)
        last = trial.status().attempts[-1]
        assert run["tags"]["mlflow.parentRunId"] == "hand"
        assert run["params"] == flat(trial.config())
        assert points_of(run) == expected_points(finished.trial(entry.trial_id))
        assert run["status"] == ("FAILED" if number == 3 else "FINISHED")
        assert run["times"] == (int(last.started * 1000), int(last.ended * 1000))
        expected = {
            "state": str(trial.status().state),
            "attempt": "1",
            "git_commit": "0123456789ab",
            "mlflow.source.git.commit": "0123456789ab",
            "host": "somewhere",
            "device": "cpu (x86_64)",
            "version.torch": "2.15",
            "version.python": "3.11",
            "evaluation.solver": "exact",
            "variant": "hand",
            "cell": entry.label,
            "seed": str(entry.seed),
            "orchestrator.trial_id": entry.trial_id,
        }
        assert expected.items() <= run["tags"].items()
        assert run["tags"].get("error") == trial.status().error
        assert files_of(run) == expected_files(trial)


def test_a_verdict_is_a_tag_of_the_parent_run_and_a_later_one_takes_its_place(
    finished: SweepStore, tracking_uri: str, command_line: CommandLine
) -> None:
    Mirror(finished, tracking_uri).finish(verdict="an earlier one")
    assert dump(tracking_uri, "hand")["hand"]["tags"][VERDICT_TAG] == "an earlier one"
    Mirror(finished, tracking_uri).finish()  # none is known: the earlier one stays
    assert dump(tracking_uri, "hand")["hand"]["tags"][VERDICT_TAG] == "an earlier one"
    code, _, err = command_line("sync", "hand", "--runs-dir", finished.runs_dir, "--tracking-uri", tracking_uri)
    assert (code, err) == (0, "")
    told = dump(tracking_uri, "hand")["hand"]["tags"][VERDICT_TAG]
    assert told == answer(comparison_table(finished))
    assert told.startswith(
        "Nothing is told apart, because that takes at least two seeds of the best cell and of another one: hand"
    )


def test_bringing_level_what_is_level_changes_nothing(finished: SweepStore, tracking_uri: str) -> None:
    mirror = Mirror(finished, tracking_uri)
    mirror.finish()
    before = dump(tracking_uri, "hand")
    mirror.finish()
    Mirror(finished, tracking_uri).finish()
    assert dump(tracking_uri, "hand") == before


@pytest.mark.parametrize("fresh", [True, False], ids=["by another driver", "by the same driver"])
def test_a_sweep_mirrored_in_pieces_has_every_point_once(store: SweepStore, tracking_uri: str, fresh: bool) -> None:
    entry, other = store.entries()[:2]
    trial = store.trial(entry.trial_id)
    mirror = Mirror(store, tracking_uri)
    mirror.sync()
    assert set(dump(tracking_uri, "hand")) == {"hand"}  # nothing has been tried yet

    log = EpochLog(trial.metrics_file)
    trial.write_status(Status(State.RUNNING, [attempt(ended=None, state=None)]))
    for epoch in range(3):
        log.append({"epoch": epoch, "iteration": 17 * epoch, "critic_loss": 1 / (epoch + 1)})
        mirror.sync()
    with trial.metrics_file.open("a") as file:
        file.write('{"epoch": 3, "critic_l')  # being written just now
    mirror = Mirror(store, tracking_uri) if fresh else mirror
    mirror.sync()
    run = dump(tracking_uri, "hand")[name_of(entry)]
    assert run["status"] == "RUNNING"
    assert run["tags"]["state"] == "RUNNING"
    assert points_of(run) == expected_points(store.trial(entry.trial_id))
    assert run["times"][1] is None

    finish(store, entry, {"exact_w1": 0.5}, epochs=5)
    finish(store, other, {"exact_w1": 0.25})
    mirror = Mirror(store, tracking_uri) if fresh else mirror
    mirror.finish()
    runs = dump(tracking_uri, "hand")
    assert len(runs) == 3
    for each in (entry, other):
        assert points_of(runs[name_of(each)]) == expected_points(store.trial(each.trial_id))
        assert runs[name_of(each)]["status"] == "FINISHED"
    assert runs["hand"]["status"] == "KILLED"  # two trials have no result


def test_a_tag_that_is_behind_doubles_nothing(finished: SweepStore, tracking_uri: str) -> None:
    """The driver died after the points and before the tag that says how many."""
    Mirror(finished, tracking_uri).finish()
    before = dump(tracking_uri, "hand")
    client = quiet_client(tracking_uri)
    for name, run in before.items():
        if name != "hand":
            client.set_tag(run["id"], MIRRORED_TAG, "1")
    Mirror(finished, tracking_uri).finish()
    assert dump(tracking_uri, "hand") == before


# --- what the tags say, and what is there -----------------------------------------------------------------------------


def holes(file: Path) -> None:
    """Deletes a whole metric, the last points of another and one in the middle, a parameter, a picture, config.yaml.

    The tags that say how much of a trial MLflow has stay as they are.
    """
    with contextlib.closing(sqlite3.connect(file)) as connection:
        for table in ("metrics", "latest_metrics"):
            connection.execute(f"DELETE FROM {table} WHERE key IN ('training_seconds', 'iteration')")
        connection.execute("DELETE FROM metrics WHERE key = 'critic_loss' AND step = 1")
        connection.execute("DELETE FROM metrics WHERE key = 'penalty' AND step > 1")
        connection.execute("DELETE FROM params WHERE key LIKE 'penalty.%'")
        connection.commit()
    pictures = file.with_name("mlflow-artifacts")
    for name in ("config.yaml", "*step+000000*.png"):
        for found in pictures.rglob(name):
            found.unlink()


def number_of_points(runs: Dump) -> int:
    return sum(len(points_of(run)) for run in runs.values())


def test_sync_logs_what_is_lacking_whatever_the_tags_say(
    finished: SweepStore, tracking_uri: str, command_line: CommandLine
) -> None:
    assert command_line("sync", "hand", "--runs-dir", finished.runs_dir)[0] == 0
    before = dump(tracking_uri, "hand")
    holes(finished.runs_dir / "mlflow.db")
    broken = dump(tracking_uri, "hand")
    assert number_of_points(before) - number_of_points(broken) > 30
    assert sum(len(before[name]["artifacts"]) - len(broken[name]["artifacts"]) for name in before) == 8
    assert command_line("sync", "hand", "--runs-dir", finished.runs_dir)[0] == 0
    assert dump(tracking_uri, "hand") == before


def test_epochs_that_were_computed_again_are_in_mlflow_once(
    finished: SweepStore, tracking_uri: str, empty_database: Path, tmp_path: Path
) -> None:
    """A damaged line and all that followed were deleted, as the message says, and the trial was resumed."""
    level(finished, tracking_uri)
    file = finished.trial(finished.entries()[0].trial_id).metrics_file
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(lines[:1]))
    level(finished, tracking_uri)
    again = [{**json.loads(line), "timestamp": json.loads(line)["timestamp"] + 5000} for line in lines[1:]]
    file.write_text(lines[0] + "".join(json.dumps(record) + "\n" for record in again))
    level(finished, tracking_uri)
    name = f"{finished.entries()[0].label} seed={finished.entries()[0].seed}"
    assert points_of(dump(tracking_uri, "hand")[name]) == expected_points(
        finished.trial(finished.entries()[0].trial_id)
    )


def test_sync_logs_only_what_is_lacking(
    finished: SweepStore, tracking_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where nothing is lacking it asks once for each metric and twice for files, and logs no point."""
    from mlflow import MlflowClient

    level(finished, tracking_uri)
    before = dump(tracking_uri, "hand")
    calls: Counter[str] = Counter()

    def counted(name: str) -> None:
        real = getattr(MlflowClient, name)

        def call(*arguments: Any, **options: Any) -> Any:
            calls[name] += 1
            if name == "log_batch":
                calls["points"] += len(options.get("metrics", ()))
            return real(*arguments, **options)

        monkeypatch.setattr(MlflowClient, name, call)

    for name in ("get_metric_history", "list_artifacts", "log_batch", "log_artifacts"):
        counted(name)
    level(finished, tracking_uri)
    metrics = sum(len(run["metrics"]) for run in before.values())
    assert calls == {"get_metric_history": metrics, "list_artifacts": 2 * 4}
    calls.clear()
    holes(finished.runs_dir / "mlflow.db")
    lacking = number_of_points(before) - number_of_points(dump(tracking_uri, "hand"))
    calls.clear()
    level(finished, tracking_uri)
    assert calls["points"] == lacking


def test_the_mirror_of_a_running_sweep_asks_for_no_history(
    finished: SweepStore, tracking_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    asked: list[str] = []
    real = MlflowClient.get_metric_history

    def ask(client: MlflowClient, run_id: str, key: str, *more: Any, **options: Any) -> Any:
        asked.append(key)
        return real(client, run_id, key, *more, **options)

    monkeypatch.setattr(MlflowClient, "get_metric_history", ask)
    for _ in range(2):
        Mirror(finished, tracking_uri).finish()
    assert asked == []
    level(finished, tracking_uri)
    assert asked  # the command sync does


def test_a_lost_database_is_made_again_from_the_store(
    finished: SweepStore, tracking_uri: str, empty_database: Path
) -> None:
    Mirror(finished, tracking_uri).finish()
    before = dump(tracking_uri, "hand", times=False)
    other = finished.runs_dir / "other.db"
    other.write_bytes(empty_database.read_bytes())
    Mirror(finished, f"sqlite:///{other}").finish()
    assert dump(f"sqlite:///{other}", "hand", times=False) == before


def test_a_trial_that_failed_and_then_was_done_looks_as_if_mirrored_only_then(
    store: SweepStore, tracking_uri: str, empty_database: Path
) -> None:
    entry = store.entries()[0]
    failed = attempt(state="FAILED", error="OSError: out of paper", commit="aaaaaaaaaaaa", code="c0ffee")
    store.trial(entry.trial_id).write_status(Status(State.FAILED, [failed], "OSError: out of paper"))
    Mirror(store, tracking_uri).finish()
    run = dump(tracking_uri, "hand")[name_of(entry)]
    assert (run["tags"]["state"], run["tags"]["error"], run["status"]) == ("FAILED", "OSError: out of paper", "FAILED")

    finish(store, entry, {"exact_w1": 0.5})
    trial = store.trial(entry.trial_id)
    status = trial.status()
    status.attempts[-1].code = "decade"
    trial.write_status(Status(State.DONE, [failed, *status.attempts]))
    Mirror(store, tracking_uri).finish()
    run = dump(tracking_uri, "hand", times=False)[name_of(entry)]
    assert run["tags"]["attempt"] == "2"
    assert run["tags"]["git_commit"] == "aaaaaaaaaaaa, 0123456789ab"
    assert run["tags"]["code"] == "c0ffee, decade"
    assert not run["tags"]["error"]

    other = store.runs_dir / "other.db"
    other.write_bytes(empty_database.read_bytes())
    Mirror(store, f"sqlite:///{other}").finish()
    assert run == dump(f"sqlite:///{other}", "hand", times=False)[name_of(entry)]


def test_two_sweeps_share_a_database_without_touching_each_other(finished: SweepStore, tracking_uri: str) -> None:
    Mirror(finished, tracking_uri).finish()
    before = dump(tracking_uri, "hand")
    other = SweepStore(finished.runs_dir, "other")
    plan = json.loads((finished.path / "plan.json").read_text())
    other.make()
    (other.path / "plan.json").write_text(json.dumps(plan))
    (other.path / "sweep.yaml").write_text("name: other\n")
    for entry in other.entries():
        assert other.copy_finished(entry) in ("hand", None)  # one has diverged
    Mirror(other, tracking_uri).finish()
    assert dump(tracking_uri, "hand") == before
    copies = dump(tracking_uri, "other")
    assert len(copies) == 4  # the parent and the three that were done
    for entry in finished.entries()[:3]:
        copy = copies[name_of(entry)]
        assert copy["tags"]["copied_from"] == "hand"
        assert points_of(copy) == points_of(before[name_of(entry)])


def test_more_points_and_options_than_one_request_may_carry(store: SweepStore, tracking_uri: str) -> None:
    entry = store.entries()[0]
    trial = store.trial(entry.trial_id)
    long = {f"option_{number}": "x" * (7000 if number == 0 else 3) for number in range(230)}
    (trial.path / "config.yaml").write_text(json.dumps(long))  # JSON is YAML
    log = EpochLog(trial.metrics_file)
    for epoch in range(5):
        log.append(
            {"epoch": epoch, "iteration": 17 * epoch, **{f"metric_{number}": float(number) for number in range(230)}}
        )
    trial.write_status(Status(State.DONE, [attempt()]))
    Mirror(store, tracking_uri).finish()
    run = dump(tracking_uri, "hand")[name_of(entry)]
    assert run["params"] == {key: value[:6000] for key, value in long.items()}
    assert points_of(run) == expected_points(store.trial(entry.trial_id))


def test_a_database_that_is_there_or_can_be_made(tracking_uri: str, tmp_path: Path) -> None:
    check_uri(tracking_uri)
    check_uri(f"sqlite:///{tmp_path / 'new' / 'mlflow.db'}")


@pytest.mark.parametrize(
    "uri", ["postgresql://user@127.0.0.1:{port}/mlflow", "mysql+pymysql://127.0.0.1:{port}/mlflow"]
)
def test_a_database_that_cannot_be_opened(uri: str, closed_port: int) -> None:
    with pytest.raises(UserError, match="the database cannot be opened"):
        check_uri(uri.format(port=closed_port))


def test_a_sqlite_file_where_a_directory_is(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="it is a directory, not a file"):
        check_uri(f"sqlite:///{tmp_path}")


@pytest.mark.parametrize("uri", ["mlruns", "/tmp/mlruns", "file:///tmp/mlruns", "ftp://host", ""])
def test_an_address_of_an_unknown_kind(uri: str) -> None:
    with pytest.raises(UserError, match="expected sqlite"):
        check_uri(uri)


def test_a_server_that_does_not_answer(closed_port: int) -> None:
    with pytest.raises(UserError, match=f"127.0.0.1:{closed_port}: no MLflow server answers"):
        check_uri(f"http://127.0.0.1:{closed_port}")


# --- a directory that was moved, a database that is gone ------------------------------------------------------------


def everything(runs_dir: Path, name: str = "hand") -> dict[str, Any]:
    """What the database in a runs directory has of a sweep, without ids and times."""
    return dump(f"sqlite:///{runs_dir / 'mlflow.db'}", name, times=False)


def test_a_moved_directory_takes_its_mlflow_along_points_and_files(
    store: SweepStore, tracking_uri: str, command_line: CommandLine, tmp_path: Path, empty_database: Path
) -> None:
    """Stopped in the middle, moved twice, and back to where it was; the old places stay empty."""
    first, second, third, fourth = store.entries()
    here, there, elsewhere = store.runs_dir, tmp_path / "with spaces" / "there", tmp_path / "elsewhere"
    there.parent.mkdir()
    finish(store, first, {"exact_w1": 0.5})
    store.trial(second.trial_id).write_status(Status(State.PENDING, [attempt(state="RUNNING")]))
    EpochLog(store.trial(second.trial_id).metrics_file).append({"epoch": 0, "iteration": 0, "exact_w1": 9.0})
    Mirror(store, tracking_uri).finish(verdict=answer(comparison_table(store)))
    before = everything(here)
    assert len(before) == 3

    here.rename(there)
    assert command_line("sync", "hand", "--runs-dir", there) == (0, "MLflow is up to date with 'hand'.\n", "")
    assert everything(there) == before
    for number, (place, entry) in enumerate([(elsewhere, second), (here, third), (there, fourth)]):
        there.rename(place) if number == 0 else (elsewhere if number == 1 else here).rename(place)
        moved = SweepStore(place, "hand")
        finish(moved, entry, {"exact_w1": 0.25 + number}, epochs=3)
        assert command_line("sync", "hand", "--runs-dir", place)[0] == 0
        assert [path for path in (here, there, elsewhere) if path.exists()] == [place]

    fresh = tmp_path / "fresh"
    fresh.mkdir()
    (fresh / "mlflow.db").write_bytes(empty_database.read_bytes())
    (fresh / "hand").symlink_to(there / "hand")
    verdict = answer(comparison_table(SweepStore(fresh, "hand")))
    Mirror(SweepStore(fresh, "hand"), f"sqlite:///{fresh / 'mlflow.db'}").finish(verdict=verdict)
    assert everything(there) == everything(fresh)  # as if it had never been anywhere else
    files = dict.fromkeys(path for run in everything(there).values() for path, _ in run["artifacts"])
    assert {
        "config.yaml",
        "sweep.yaml",
        *expected_files(SweepStore(there, "hand").trial(first.trial_id)),
    } <= files.keys()


def test_an_experiment_that_was_deleted_in_mlflow_is_made_again(finished: SweepStore, tracking_uri: str) -> None:
    Mirror(finished, tracking_uri).finish()
    before = dump(tracking_uri, "hand")
    client = quiet_client(tracking_uri)
    experiment = client.get_experiment_by_name("hand")
    assert experiment is not None
    client.delete_experiment(experiment.experiment_id)
    level(finished, tracking_uri)
    assert dump(tracking_uri, "hand").keys() == before.keys()
    level(finished, tracking_uri)
    active = [each.name for each in client.search_experiments() if each.name != "Default"]
    assert active == ["hand"]


def test_what_keeps_mlflow_from_being_level_is_one_line(finished: SweepStore, tracking_uri: str) -> None:
    with contextlib.closing(sqlite3.connect(finished.runs_dir / "mlflow.db")) as connection:
        connection.execute("DROP TABLE experiment_tags")
    with pytest.raises(UserError, match=r"^MLflow at sqlite.* cannot be updated with the sweep 'hand': \w+: .*$"):
        level(finished, tracking_uri)


def test_a_directory_reached_by_another_name_has_not_moved(finished: SweepStore, tracking_uri: str) -> None:
    Mirror(finished, tracking_uri).finish()
    before = dump(tracking_uri, "hand")
    link = finished.runs_dir.with_name("link")
    link.symlink_to(finished.runs_dir)
    Mirror(SweepStore(link, "hand"), default_uri(link)).finish()
    assert dump(tracking_uri, "hand") == before


def test_other_sweeps_in_a_moved_database_are_left_alone_until_it_is_their_turn(
    finished: SweepStore, tracking_uri: str, tmp_path: Path
) -> None:
    other = SweepStore(finished.runs_dir, "other")
    shutil.copytree(finished.path, other.path)
    for each in (finished, other):
        Mirror(each, tracking_uri).finish()
    before = everything(finished.runs_dir, "other")
    moved = finished.runs_dir.rename(tmp_path / "moved")
    uri = default_uri(moved)
    waiting = dump(uri, "other")
    Mirror(SweepStore(moved, "hand"), uri).finish()
    assert dump(uri, "other") == waiting
    Mirror(SweepStore(moved, "other"), uri).finish()
    assert everything(moved, "other") == before


def test_sync_makes_a_deleted_database_again(
    finished: SweepStore, tracking_uri: str, command_line: CommandLine, tmp_path: Path
) -> None:
    Mirror(finished, tracking_uri).finish(verdict=answer(comparison_table(finished)))
    before = everything(finished.runs_dir)
    assert len(before) == 5
    moved = finished.runs_dir.rename(tmp_path / "moved")  # else this process would go on with the file it has open
    (moved / "mlflow.db").unlink()
    assert command_line("sync", "hand", "--runs-dir", moved) == (0, "MLflow is up to date with 'hand'.\n", "")
    assert everything(moved) == before


def test_deleted_artifacts_and_database_are_made_again_too(
    finished: SweepStore, tracking_uri: str, empty_database: Path
) -> None:
    Mirror(finished, tracking_uri).finish()
    before = everything(finished.runs_dir)
    shutil.rmtree(finished.runs_dir / "mlflow-artifacts")
    (finished.runs_dir / "mlflow.db").write_bytes(empty_database.read_bytes())
    Mirror(finished, tracking_uri).finish()
    assert everything(finished.runs_dir) == before


def test_a_trial_restarted_and_then_taken_from_another_sweep_has_none_of_its_old_points(
    store: SweepStore, tracking_uri: str, tmp_path: Path
) -> None:
    entry = store.entries()[0]
    finish(store, entry, {"exact_w1": 0.5}, state=State.FAILED, error="why", epochs=3)
    Mirror(store, tracking_uri).finish()
    store.trial(entry.trial_id).restart()  # and the driver is stopped before the trial begins
    other = make_sweep(tmp_path, TWO_CELLS.replace("name: hand", "name: other"))
    finish(other, entry, {"exact_w1": 0.25})
    assert store.copy_finished(entry) == "other"
    Mirror(store, tracking_uri).finish()
    assert points_of(dump(tracking_uri, "hand")[name_of(entry)]) == expected_points(store.trial(entry.trial_id))


# --- a sweep file that was changed ------------------------------------------------------------------------------------


TWO_VARIANTS = f"""\
name: hand
description: "DESCRIPTION"
base: {POINTS}
variants:
  FIRST: {{grid: {{penalty.weight: [1, 2]}}}}
  second: {{grid: {{penalty.weight: [WEIGHTS]}}}}
compare: {{metric: METRIC, mode: min}}
"""


def plan_again(store: SweepStore, first: str, weights: str, metric: str, description: str) -> SweepStore:
    """Writes the plan of another version of the sweep file into the store, and results of trials that have none."""
    text = TWO_VARIANTS.replace("FIRST", first).replace("WEIGHTS", weights).replace("METRIC", metric)
    again = make_sweep(store.runs_dir.parent, text.replace("DESCRIPTION", description))
    for entry in again.entries():
        if again.trial(entry.trial_id).status().state is State.PENDING:
            finish(again, entry, {"exact_w1": entry.axes["penalty.weight"], "kid": 0.5})
    return again


def experiment_tags(uri: str, sweep: str = "hand") -> dict[str, str]:
    experiment = quiet_client(uri).get_experiment_by_name(sweep)
    assert experiment is not None
    return {key: value for key, value in experiment.tags.items() if key != "mlflow.experimentKind"}


@pytest.mark.parametrize("by_older", [False, True], ids=["", "mirrored by an older version"])
def test_level_means_as_if_mirrored_only_now(
    tmp_path: Path, tracking_uri: str, empty_database: Path, by_older: bool
) -> None:
    """A variant was renamed, ``compare`` and the description changed, trials were removed and added."""
    store = plan_again(SweepStore(tmp_path / "runs", "hand"), "first", "3, 4", "exact_w1", "" if by_older else "before")
    level(store, tracking_uri)
    client = quiet_client(tracking_uri)
    if by_older:
        experiment = client.get_experiment_by_name("hand")
        assert experiment is not None
        client.delete_experiment_tag(experiment.experiment_id, WRITTEN_TAG)
    store = plan_again(store, "other", "4, 5", "critic_loss", "after")
    level(store, tracking_uri)
    level(store, tracking_uri)

    other = store.runs_dir / "other.db"
    other.write_bytes(empty_database.read_bytes())
    level(store, f"sqlite:///{other}")
    ours, fresh = (dump(uri, "hand", times=False) for uri in (tracking_uri, f"sqlite:///{other}"))
    assert set(ours) == {"hand", *(name_of(entry) for entry in store.entries())}
    assert ours == fresh
    assert experiment_tags(tracking_uri) == experiment_tags(f"sqlite:///{other}")
    assert "critic_loss" in experiment_tags(tracking_uri)["mlflow.sharedViewState.methods"]


def test_what_a_user_changed_in_mlflow_stays(tmp_path: Path, tracking_uri: str) -> None:
    store = plan_again(SweepStore(tmp_path / "runs", "hand"), "first", "3", "exact_w1", "before")
    level(store, tracking_uri)
    client = quiet_client(tracking_uri)
    experiment = client.get_experiment_by_name("hand")
    assert experiment is not None
    mine = {"mlflow.note.content": "mine", "mlflow.sharedViewState.methods": '{"name": "mine", "updatedAt": 9}'}
    for key, value in mine.items():
        client.set_experiment_tag(experiment.experiment_id, key, value)
    client.set_tag(dump(tracking_uri, "hand")["hand"]["id"], "mlflow.note.content", "mine")
    for metric in ("critic_loss", "exact_w1"):
        level(plan_again(store, "first", "3", metric, f"after {metric}"), tracking_uri)
        assert mine.items() <= experiment_tags(tracking_uri).items()
        assert metric in experiment_tags(tracking_uri)["mlflow.sharedViewState.trials"]
        assert dump(tracking_uri, "hand")["hand"]["tags"]["mlflow.note.content"] == "mine"


def test_a_trial_that_is_planned_again_comes_back(tmp_path: Path, tracking_uri: str) -> None:
    store = plan_again(SweepStore(tmp_path / "runs", "hand"), "first", "3, 4", "exact_w1", "x")
    level(store, tracking_uri)
    before = dump(tracking_uri, "hand", times=False)
    level(plan_again(store, "first", "3", "exact_w1", "x"), tracking_uri)
    assert len(dump(tracking_uri, "hand")) == 4
    level(plan_again(store, "first", "3, 4", "exact_w1", "x"), tracking_uri)
    assert dump(tracking_uri, "hand", times=False) == before


def test_a_tag_that_somebody_deleted_is_set_again(finished: SweepStore, tracking_uri: str) -> None:
    level(finished, tracking_uri)
    before = dump(tracking_uri, "hand")
    run = before[name_of(finished.entries()[0])]["id"]
    for key in ("cell", "state", "host"):
        quiet_client(tracking_uri).delete_tag(run, key)
    level(finished, tracking_uri)
    assert dump(tracking_uri, "hand") == before


ONE_SEARCH = SEARCH.replace("[1, 10]", "[1]")


def test_decided_trials_appear_while_a_sweep_runs_and_once(tmp_path: Path, tracking_uri: str) -> None:
    """A mirror that was made before the decisions and one that was made after them agree."""
    store = plan_grown(tmp_path, HEAD + "description: tuned\n" + ONE_SEARCH)
    mirror = Mirror(store, tracking_uri)
    mirror.sync()
    assert set(dump(tracking_uri, "g")) == {"g"}
    end_trials(store, 2)
    mirror.sync()
    assert len(dump(tracking_uri, "g")) == 3
    end_trials(store)
    mirror.sync()
    runs = dump(tracking_uri, "g")
    parent = runs.pop("g")
    assert set(runs) == {name_of(entry) for entry in store.entries()}
    for entry in store.entries():
        tags = runs[name_of(entry)]["tags"]
        assert (tags["orchestrator.stage"], tags["orchestrator.proposal"]) == (entry.stage, str(entry.proposal))
    note = parent["tags"]["mlflow.note.content"]
    assert note.startswith(
        "tuned\n\nDecisions add trials to this sweep:\n\n- search: 3 proposals of critic.lr by random"
    )
    assert experiment_tags(tracking_uri, "g")["mlflow.note.content"] == note
    mirror.finish()
    before, views = dump(tracking_uri, "g"), experiment_tags(tracking_uri, "g")
    assert ("decisions.jsonl", store.decisions_file.stat().st_size) in before["g"]["artifacts"]
    assert level(store, tracking_uri) == (None, [])
    assert (dump(tracking_uri, "g"), experiment_tags(tracking_uri, "g")) == (before, views)
    client = quiet_client(tracking_uri)
    [experiment] = [each for each in client.search_experiments() if each.name == "g"]
    found = client.search_runs([experiment.experiment_id], "tags.`orchestrator.stage` = 'confirm'")
    assert len(found) == 2


def test_a_view_begins_with_the_last_epoch_of_the_longest_decided_trial(tmp_path: Path, tracking_uri: str) -> None:
    text = HEAD.replace("batch_size=8, ", "") + "search: {trials: 4, sampler: random, space: {batch_size: [8, 64]}}\n"
    with pytest.warns(UserWarning, match="the space has 2 settings"):
        store = plan_grown(tmp_path, text)
    mirror = Mirror(store, tracking_uri)
    mirror.sync()
    end_trials(store)
    mirror.finish()
    views = experiment_tags(tracking_uri, "g")
    Mirror(store, tracking_uri).finish()
    assert experiment_tags(tracking_uri, "g") == views
    assert view_tags(store.plan()).items() <= views.items()
    assert len({entry.epochs for entry in store.entries()}) == 2


def test_a_trial_that_is_an_ordinary_one_by_now_has_no_stage(tmp_path: Path, tracking_uri: str) -> None:
    store = plan_grown(tmp_path, HEAD + ONE_SEARCH)
    end_trials(store)
    Mirror(store, tracking_uri).finish()
    entry = store.entries()[0]
    rate = entry.axes["critic.lr"]
    store = plan_grown(
        tmp_path, HEAD + f"grid: {{penalty.weight: [{entry.axes['penalty.weight']}], critic.lr: [{rate}]}}\n"
    )
    assert [each.trial_id for each in store.entries()] == [entry.trial_id]
    assert level(store, tracking_uri) == (None, [])
    [tags] = [run["tags"] for name, run in dump(tracking_uri, "g").items() if name != "g"]
    assert not {"orchestrator.stage", "orchestrator.proposal"} & tags.keys()
