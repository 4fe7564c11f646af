"""One trial on a worker, without Ray: from the store and back into it."""

from __future__ import annotations

import dataclasses
import gc
import itertools
import json
import os
import shutil
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from small_trials import EVERYTHING, NewTrial, assert_equal_to_the_bit, contents, create, run

from orchestrator.store.states import State
from orchestrator.store.trial import TrialStore
from orchestrator.trial.gpu_memory import memory_share, out_of_memory
from orchestrator.trial.run import run_trial
from orchestrator.trial.surroundings import git_commit
from trainers.config import identity_of


@pytest.fixture(scope="module")
def undisturbed_with_everything(tmp_path_factory: pytest.TempPathFactory) -> TrialStore:
    """Run in one go as well."""
    trial = create(tmp_path_factory.mktemp("undisturbed") / "trial", **EVERYTHING)
    assert run(trial) is State.DONE
    return trial


def test_a_trial_that_is_done_has_everything_in_its_directory(new_trial: NewTrial) -> None:
    trial = new_trial(evaluation={"times": 2})
    seen: list[int] = []
    state = run_trial(trial, trial.path.parent / "cache", on_epoch=lambda record: seen.append(record["epoch"]))
    assert state is State.DONE
    records = trial.epochs()
    assert [(record["epoch"], record["iteration"]) for record in records] == [(0, 0), (1, 20), (2, 40), (3, 50)]
    assert seen == [0, 1, 2, 3]
    for record in records[1:]:
        assert {"critic_loss", "generator_loss", "wasserstein_estimate", "epoch_seconds"} <= record.keys()
    assert all(a["timestamp"] <= b["timestamp"] for a, b in itertools.pairwise(records))

    # the untrained generator, and one picture an evaluation: after 25 iterations, in epoch 2, and at the end
    assert [file.name for file in trial.sample_files()] == [f"epoch_00000{epoch}.png" for epoch in (0, 2, 3)]
    for file in trial.sample_files():
        with Image.open(file) as picture:
            assert picture.size[0] > 100
    status = trial.status()
    (attempt,) = status.attempts
    assert status.state is State.DONE
    assert status.error is None
    assert attempt.state == "DONE"
    assert attempt.host == socket.gethostname()
    assert attempt.pid == os.getpid()
    assert attempt.device.startswith("cpu")
    assert attempt.commit == git_commit()
    assert attempt.versions["torch"] == torch.__version__.partition("+")[0]
    assert {"python", "torch-fidelity", "POT", "ray", "mlflow", "numpy"} <= attempt.versions.keys()
    assert attempt.started < attempt.ended
    assert attempt.resumed_at == 0
    assert trial.log_file.read_text().splitlines()[-1].endswith("DONE")


def test_references_are_the_floor_and_what_the_metrics_depend_on(new_trial: NewTrial) -> None:
    points = {"name": "mlp", "latent_size": 2, "generator_tail": ["relu", "none"]}
    trial = new_trial(dataset={"name": "mixture"}, network=points, evaluation={"name": "transport"}, budget=2)
    assert run(trial) is State.DONE
    references, untrained = trial.references(), trial.epochs()[0]
    assert set(references) == {"floor", "metrics", "higher_is_better", "neutral", "info"}
    assert "exact_w1" in references["floor"]
    assert references["floor"].keys() <= untrained.keys()
    assert references["floor"].keys() <= trial.epochs()[-1].keys()
    assert 0 < references["floor"]["exact_w1"] < untrained["exact_w1"]


@pytest.mark.parametrize(
    "stops",
    [
        pytest.param([0], id="before the first iteration"),
        pytest.param([7], id="in the first epoch"),
        pytest.param([20, 13, 2], id="again and again, between two epochs too"),
    ],
)
def test_a_trial_that_was_interrupted_equals_one_that_was_not(
    new_trial: NewTrial, undisturbed_with_everything: TrialStore, stops: list[int]
) -> None:
    trial = new_trial(**EVERYTHING)
    for asked in stops:
        assert run(trial, after=asked) is State.RUNNING
        assert trial.checkpoint_file.exists()
        assert trial.status().attempts[-1].state == "RUNNING"
    assert run(trial) is State.DONE
    assert_equal_to_the_bit(trial, undisturbed_with_everything)
    attempts = trial.status().attempts
    assert [attempt.resumed_at for attempt in attempts] == [0, *itertools.accumulate(stops)]
    assert "came out different" not in trial.log_file.read_text()


def test_a_killed_trial_recomputes_the_epochs_since_its_checkpoint_and_stores_them_once(
    new_trial: NewTrial, undisturbed: TrialStore
) -> None:
    trial = new_trial()
    run(trial, after=25)
    older = trial.path / "older"
    shutil.copy(trial.checkpoint_file, older)
    assert run(trial) is State.DONE
    os.replace(older, trial.checkpoint_file)  # as if the later checkpoints had never been written
    before = trial.metrics_file.read_bytes()
    assert run(trial) is State.DONE
    assert trial.metrics_file.read_bytes() == before
    assert_equal_to_the_bit(trial, undisturbed)
    assert "came out different" not in trial.log_file.read_text()


def test_an_epoch_that_comes_out_different_is_told_in_the_log_and_not_stored(new_trial: NewTrial) -> None:
    trial = new_trial()
    run(trial)
    records = trial.epochs()
    records[1]["penalty"] += 1
    trial.metrics_file.write_text("".join(json.dumps(record) + "\n" for record in records))
    before = trial.metrics_file.read_bytes()
    trial.checkpoint_file.unlink()
    trial.previous_checkpoint_file.unlink()
    assert run(trial) is State.DONE
    assert trial.metrics_file.read_bytes() == before
    assert "epoch 1 came out different after resuming: penalty" in trial.log_file.read_text()


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda content: content[: len(content) // 2], id="torn"),
        pytest.param(lambda content: b"\0" * len(content), id="zeros"),
    ],
)
def test_a_damaged_checkpoint_gives_way_to_the_one_before(
    new_trial: NewTrial, undisturbed: TrialStore, damage: Callable[[bytes], bytes]
) -> None:
    trial = new_trial()
    run(trial, after=45)  # checkpoints after epochs 1 and 2 and here
    trial.checkpoint_file.write_bytes(damage(trial.checkpoint_file.read_bytes()))
    assert run(trial) is State.DONE
    assert trial.status().attempts[-1].resumed_at == 40
    assert "checkpoint.pt cannot be used" in trial.log_file.read_text()
    assert_equal_to_the_bit(trial, undisturbed)


def test_without_any_readable_checkpoint_a_trial_starts_again(new_trial: NewTrial, undisturbed: TrialStore) -> None:
    trial = new_trial()
    run(trial, after=45)
    for file in (trial.checkpoint_file, trial.previous_checkpoint_file):
        file.write_bytes(b"not a checkpoint")
    assert run(trial) is State.DONE
    assert trial.status().attempts[-1].resumed_at == 0
    assert_equal_to_the_bit(trial, undisturbed)


def test_a_checkpoint_cannot_run_code(new_trial: NewTrial, tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "evil",))

    trial = new_trial()
    run(trial, after=5)
    torch.save({"iteration": Evil()}, trial.checkpoint_file)
    assert run(trial) is State.DONE
    assert not (tmp_path / "evil").exists()


def test_a_trial_that_raises_has_failed_with_its_traceback_in_the_log(new_trial: NewTrial) -> None:
    trial = new_trial()
    path = trial.path / "config.yaml"
    path.write_text(path.read_text().replace("name: digits", "name: digitz"))
    assert run(trial) is State.FAILED
    status = trial.status()
    assert status.state is State.FAILED
    assert status.error == "ConfigError: dataset.name: there is no dataset called 'digitz'; did you mean 'digits'?"
    assert status.attempts[-1].error == status.error
    assert status.attempts[-1].state == "FAILED"
    log = trial.log_file.read_text()
    assert "Traceback (most recent call last)" in log
    assert "did you mean 'digits'" in log

    path.write_text(path.read_text().replace("name: digitz", "name: digits"))
    assert run(trial) is State.DONE
    assert trial.status().error is None
    assert [attempt.state for attempt in trial.status().attempts] == ["FAILED", "DONE"]


def test_a_configuration_that_is_another_trial_s_is_not_trained_under_this_one_s_name(
    new_trial: NewTrial, tmp_path: Path
) -> None:
    """The file was edited by hand before there was a checkpoint, which would have revealed it."""
    made = new_trial()
    trial = TrialStore(made.path.rename(tmp_path / identity_of(made.config())))
    path = trial.path / "config.yaml"
    text = path.read_text()
    path.write_text(text.replace("batch_size: 64", "batch_size: 32"))
    assert run(trial) is State.FAILED
    other = identity_of(trial.config())
    assert (trial.status().error or "").endswith(
        f"config.yaml is that of trial {other}: put it back as it was, or run the sweep's file again"
    )
    assert trial.epochs() == []
    path.write_text(text.replace("device: cpu", "device: auto"))  # the device is not part of a trial's identity
    assert run(trial) is State.DONE


def test_a_trial_whose_numbers_are_not_finite_any_more_has_diverged(new_trial: NewTrial) -> None:
    trial = new_trial(critic={"lr": 1e30})
    assert run(trial) is State.DIVERGED
    status = trial.status()
    assert status.state is State.DIVERGED
    assert "not finite after critic iteration" in (status.error or "")
    assert [record["epoch"] for record in trial.epochs()] == [0]  # the epoch in which it happened is none


@pytest.mark.parametrize("ends", [State.DONE, State.FAILED])
def test_a_trial_leaves_no_network_in_the_worker_s_memory(new_trial: NewTrial, ends: State) -> None:
    """A traceback holds every frame of training, in cycles."""
    trial = new_trial()
    if ends is State.FAILED:
        (trial.path / "samples").write_text("a file in the folder's place")
    gc.disable()
    try:
        before = networks_in_memory()
        assert run(trial) is ends
        assert networks_in_memory() == before
    finally:
        gc.enable()
    assert gc.get_freeze_count() == 0


def networks_in_memory() -> int:
    return sum(isinstance(each, torch.nn.Module) for each in gc.get_objects())


def test_warnings_go_into_the_log(new_trial: NewTrial, monkeypatch: pytest.MonkeyPatch) -> None:
    import warnings

    from trainers.training import Training

    def warn(self: Training, *arguments: Any) -> dict[str, float] | None:
        warnings.warn("a bit odd", stacklevel=1)
        return original(self, *arguments)

    original = Training.run_epoch
    monkeypatch.setattr(Training, "run_epoch", warn)
    trial = new_trial()
    assert run(trial) is State.DONE
    assert "UserWarning: a bit odd" in trial.log_file.read_text()


# --- a worker that was given up for lost ----------------------------------------------------------------------------


def take_over(trial: TrialStore) -> dict[str, bytes]:
    """Begins another attempt, as a driver does that has given this worker up. Returns the files at that moment."""
    status = trial.status()
    status.attempts.append(dataclasses.replace(status.attempts[-1], started=time.time(), host="another", pid=1))
    trial.write_status(status)
    return contents(trial.path, "log.txt")


class Raised(RuntimeError):
    """An error raised by the trial itself."""


@pytest.mark.parametrize(
    "then",
    ["reaches the end of an epoch", "is due to write a checkpoint", "is told to stop", "diverges", "raises"],
)
def test_a_worker_that_was_given_up_for_lost_writes_nothing_more(new_trial: NewTrial, then: str) -> None:
    """It writes no epoch, checkpoint, sample or state over the other attempt's, in the middle of an epoch or not."""
    changes: dict[str, Any] = {"critic": {"lr": 1e30}} if then == "diverges" else {}
    changes |= {"checkpoint_seconds": 0.001} if then == "is due to write a checkpoint" else {}
    trial = new_trial(**changes)
    left: dict[str, bytes] = {}
    asked = itertools.count(1)

    def at_a_step() -> bool:
        if not left and next(asked) == (5 if then == "diverges" else 25):
            left.update(take_over(trial))
            if then == "raises":
                raise Raised
        return bool(left) and then == "is told to stop"

    assert run_trial(trial, trial.path.parent / "cache", should_stop=at_a_step) is State.RUNNING
    assert left
    assert contents(trial.path, "log.txt") == left
    assert trial.status().attempts[-1].host == "another"


def test_a_worker_that_was_given_up_for_lost_writes_no_best_checkpoint(new_trial: NewTrial) -> None:
    points = {"name": "mlp", "latent_size": 2, "generator_tail": ["relu", "none"]}
    transport = {"name": "transport", "times": 3}
    trial = new_trial(dataset={"name": "mixture"}, network=points, evaluation=transport, budget=6)
    left: dict[str, bytes] = {}

    def after(record: dict[str, Any]) -> None:
        if record["epoch"] == 1:
            left.update(take_over(trial))

    assert run_trial(trial, trial.path.parent / "cache", on_epoch=after) is State.RUNNING
    assert "best.pt" in left
    assert contents(trial.path, "log.txt") == left


def test_a_worker_that_is_given_up_for_lost_before_it_has_begun_writes_nothing(new_trial: NewTrial) -> None:
    """The place is taken while data and evaluation are prepared, which may take long."""
    trial = new_trial()
    run(trial, after=25)
    path = trial.path / "config.yaml"
    text = path.read_text()
    path.unlink()
    os.mkfifo(path)  # the worker waits for it, after its attempt has been noted
    left: dict[str, bytes] = {}

    def meanwhile() -> None:
        with path.open("w") as pipe:
            left.update(take_over(trial))
            pipe.write(text)

    thread = threading.Thread(target=meanwhile)
    thread.start()
    assert run(trial) is State.RUNNING
    thread.join()
    assert left
    assert contents(trial.path, "log.txt") == left


def test_the_attempt_that_took_a_worker_s_place_ends_as_if_it_had_been_alone(
    new_trial: NewTrial, undisturbed: TrialStore
) -> None:
    """The worker that was given up continues at the same time, and then sees that its place is taken."""
    trial = new_trial()
    asked = itertools.count(1)

    def at_a_step() -> bool:
        if next(asked) == 25:
            assert run(trial) is State.DONE  # all of the other attempt
        return False

    assert run_trial(trial, trial.path.parent / "cache", should_stop=at_a_step) is State.RUNNING
    assert trial.status().state is State.DONE
    assert [attempt.state for attempt in trial.status().attempts] == [None, "DONE"]
    assert_equal_to_the_bit(trial, undisturbed)


def test_curves_of_probes_and_their_pictures_stand_beside_the_samples(new_trial: NewTrial) -> None:
    probes = ["vertical_shift", "nearest", "neighbours"]
    trial, twin = (new_trial(probes=probes, evaluation={"times": 1}) for _ in range(2))
    asked = itertools.chain([False] * 30, itertools.repeat(True))
    assert run_trial(trial, trial.path.parent / "cache", should_stop=lambda: next(asked)) is State.RUNNING
    assert run(trial) is run(twin) is State.DONE
    assert [file.name for file in trial.sample_files()] == [
        f"epoch_00000{epoch}{name}.png"
        for epoch in (0, 3)
        for name in ("", "_nearest", "_neighbours", "_vertical_shift")
    ]
    assert [file.name for file in sorted(trial.probes.iterdir())] == ["epoch_000000.json", "epoch_000003.json"]
    curves = json.loads((trial.probes / "epoch_000003.json").read_text())
    assert {name: set(each) for name, each in curves.items()} == {
        "vertical_shift": {"critic"},
        "nearest": {"generated", "held_out"},
        "neighbours": set(),
    }
    with Image.open(trial.samples / "epoch_000003_neighbours.png") as image:
        assert image.width > 3 * image.height  # six rows of nineteen
    assert len(curves["vertical_shift"]["critic"]) == 9
    assert trial.epochs()[-1]["shift_total_variation"] == twin.epochs()[-1]["shift_total_variation"]
    assert contents(trial.probes) == contents(twin.probes)
    assert trial.references()["metrics"] == list(twin.references()["metrics"])
    assert "nearest_distance" in trial.references()["metrics"]


@pytest.mark.parametrize(("gpus", "share"), [(None, 1.0), (0.0, 1.0), (0.25, 0.25), (1.0, 1.0), (2.0, 1.0)])
def test_a_trial_may_take_its_fraction_of_a_gpu_s_memory(gpus: float | None, share: float) -> None:
    assert memory_share(gpus) == share


def test_a_gpu_without_room_is_told_with_the_share_and_what_to_do() -> None:
    full = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nSee the documentation")
    assert out_of_memory(full, 0.25) == (
        "OutOfMemoryError: its share of the GPU's memory (0.25) is not enough: give it more (resources.gpus) "
        "and run the sweep's file again, or make batch_size smaller"
    )
    assert "share" not in (out_of_memory(full, 1.0) or "")
    assert out_of_memory(MemoryError("out of paper"), 0.25) is None
