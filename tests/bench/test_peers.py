"""What the bench of peers counts, and that their trials are ours."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
import torch
import yaml

from bench.peers.__main__ import Ours, Peer, contenders
from bench.peers.trial import keep, train
from orchestrator.sweep.presets import compose
from trainers.config import TrialConfig
from trainers.training import Training


@pytest.fixture
def config() -> TrialConfig:
    return TrialConfig.from_dict(compose(["trainer=wgan_gp", "evaluation=none", "budget=50", "device=cpu"]))


def test_a_peer_s_epochs_count_once_and_those_that_came_twice_are_counted(tmp_path: Path) -> None:
    peer = Peer(tmp_path, [])
    assert peer.done() == Counter()
    (tmp_path / "epochs.log").write_text("one\t1\none\t2\ntwo\t1\none\t2\ntwo\t1\ntwo\t2\n")
    assert peer.done() == {"one": 2, "two": 2}
    assert peer.computed_again(Counter()) == 2
    for label, fid in (("one", 2.5), ("two", 1.5)):
        keep(tmp_path, label, {"classifier_fid": fid})
    assert peer.results() == {"one": 2.5, "two": 1.5}


def test_ours_are_counted_from_the_store(config: TrialConfig, tmp_path: Path) -> None:
    """Of epochs of 20 critic iterations: one trial went on after two of three, one began anew, one ran through."""
    ours = Ours(tmp_path)
    for name, resumed in (("on", [0, 40]), ("anew", [0, 0]), ("through", [0])):
        trial = tmp_path / "peers" / "trials" / name
        trial.mkdir(parents=True)
        (trial / "config.yaml").write_text(yaml.safe_dump(config.to_dict()))
        (trial / "status.json").write_text(json.dumps({"attempts": [{"resumed_at": each} for each in resumed]}))
        records = [{"epoch": epoch, "classifier_fid": 10.0 - epoch} for epoch in range(4)]
        (trial / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    before = ours.done()
    assert before == {"on": 3, "anew": 3, "through": 3}
    assert ours.computed_again(before) == 1 + 3
    assert ours.results() == dict.fromkeys(before, 7.0)


def test_a_peer_s_trial_is_ours_and_goes_on_from_a_state(config: TrialConfig, tmp_path: Path) -> None:
    plain = Training(config, cache_dir=tmp_path / "cache")
    while not plain.finished:
        plain.run_epoch()
    states, seen = [], []

    def report(training: Training, metrics: dict[str, float]) -> None:
        states.append({name: tensor.clone() for name, tensor in training.critic.state_dict().items()})
        seen.append((training.epoch, "critic_loss" in metrics))

    train(tmp_path, {"label": "one", "config": config.to_dict()}, report)
    assert seen == [(1, True), (2, True), (3, True)]
    assert (tmp_path / "epochs.log").read_text() == "one\t1\none\t2\none\t3\n"
    assert all(torch.equal(tensor, plain.critic.state_dict()[name]) for name, tensor in states[-1].items())
    other = Training(config, cache_dir=tmp_path / "cache")
    other.run_epoch()
    train(tmp_path, {"label": "one", "config": config.to_dict()}, report, other.state_dict())
    assert seen[3:] == [(2, True), (3, True)]
    assert all(torch.equal(tensor, states[2][name]) for name, tensor in states[-1].items())


def test_every_contender_is_told_apart_by_its_folder(tmp_path: Path) -> None:
    for make in contenders(2).values():
        command = make(tmp_path).command(again=False)
        assert any(str(tmp_path) in word for word in command)
