"""Long work can be stopped between its steps. What was begun is discarded, and doing it again gives the same."""

from __future__ import annotations

import copy
import itertools
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from trainers.config import TrialConfig
from trainers.data.decoding import decode_all
from trainers.evaluation.caching import cached
from trainers.evaluation.classifier import train_classifier
from trainers.locks import locked
from trainers.stopping import Stopped, asked_to_stop, between, stop_if_asked, stoppable
from trainers.training import Training

Trial = Callable[..., TrialConfig]


def after(number: int) -> Callable[[], bool]:
    """A reason to stop from the next question after this many on."""
    asked = itertools.count(1)
    return lambda: next(asked) > number


def test_without_a_reason_nothing_stops() -> None:
    stop_if_asked()
    assert list(between("abc")) == ["a", "b", "c"]


def test_work_is_stopped_between_two_steps() -> None:
    done: list[str] = []
    with stoppable(after(1)), pytest.raises(Stopped):
        done.extend(between("abc"))
    assert done == ["a", "b"]
    stop_if_asked()  # the reason is gone with its context


def test_a_context_inside_another_keeps_the_outer_reason() -> None:
    with stoppable(lambda: True), stoppable(lambda: False), pytest.raises(Stopped):
        stop_if_asked()


def test_another_thread_is_not_stopped() -> None:
    told: list[bool] = []
    with stoppable(lambda: True):
        other = threading.Thread(target=lambda: told.append(asked_to_stop()))
        other.start()
        other.join()
    assert told == [False]


def same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    return one == other


def test_an_evaluation_stopped_anywhere_leaves_everything_as_it_was(
    trial: Trial, cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainers.training.GENERATION_BATCH", 100)
    config = trial(
        dataset={"name": "digits"},
        evaluation={"name": "classifier", "samples": 300, "stop_at": 1e6},
        probes=[{"name": "distance"}, {"name": "nearest"}],
    )
    training = Training(config, cache_dir=cache_dir)
    training.run_epoch(lambda: training.iteration == 3)
    state, global_state = copy.deepcopy(training.state_dict()), torch.get_rng_state()
    asked = itertools.count()
    whole = training.evaluate(should_stop=lambda: next(asked) < 0).metrics
    points = next(asked)
    assert points > 25  # two batches, the metrics, pairs and parts of the probes
    training.load_state_dict(copy.deepcopy(state))
    for point in [*range(8), points // 2, points - 1]:
        with pytest.raises(Stopped):
            training.evaluate(should_stop=after(point))
        assert same(training.state_dict(), state)
        assert training.critic.training
        assert training.generator.training
        assert torch.equal(torch.get_rng_state(), global_state)
    again = training.evaluate().metrics
    assert {**again, "evaluation_seconds": 0} == {**whole, "evaluation_seconds": 0}
    assert training.finished  # stop_at


@pytest.mark.parametrize("epoch", [1, 3], ids=["whole", "last and short"])
def test_an_epoch_that_was_put_back_comes_again_from_a_checkpoint_too(
    trial: Trial, cache_dir: Path, epoch: int
) -> None:
    config = trial(batch_size=32, budget=24, dataset={"held_out": 1477})  # epochs of 10, 10 and 4 iterations
    training, fresh = (Training(config, cache_dir=cache_dir) for _ in range(2))
    length = config.epoch_length
    record = None
    while training.iteration < min(epoch * length, config.budget):
        record = training.run_epoch()
    assert record is not None
    ended = training.finished
    before = copy.deepcopy(training.state_dict())
    training.put_back(record)
    assert not training.finished
    fresh.load_state_dict(copy.deepcopy(training.state_dict()))
    for each in (training, fresh):
        assert each.run_epoch(should_stop=lambda: True) == record
        assert each.finished is ended
        assert same(each.state_dict(), before)


def test_the_training_of_a_classifier_that_is_stopped_leaves_nothing(
    trial: Trial, cache_dir: Path, tmp_path: Path
) -> None:
    digits = trial().dataset.load(cache_dir)
    torch.set_num_threads(2)
    state = torch.get_rng_state()
    with stoppable(after(3)), pytest.raises(Stopped):
        train_classifier(digits, tmp_path)
    assert (torch.get_num_threads(), torch.is_grad_enabled()) == (2, True)
    assert torch.equal(torch.get_rng_state(), state)
    assert list(tmp_path.rglob("*.safetensors")) == []
    torch.set_num_threads(1)


def test_decoding_stops_between_two_chunks() -> None:
    decoded: list[int] = []

    def decode(source: int) -> Any:
        decoded.append(source)
        return source

    with stoppable(after(1)), pytest.raises(Stopped):
        list(decode_all(range(100_000), decode))
    assert 0 < len(decoded) < 50_000


def test_waiting_for_what_another_process_makes_stops(tmp_path: Path) -> None:
    path = tmp_path / "file"
    program = f"from pathlib import Path; from trainers.locks import locked\nwith locked(Path({str(path)!r})): "
    command = [sys.executable, "-c", f"{program}print('held', flush=True); input()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with stoppable(after(3)), pytest.raises(Stopped):
            cached(path, lambda: pytest.fail("somebody else makes it"))
        other.communicate("\n")
    with locked(path):
        pass
