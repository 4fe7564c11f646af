"""What the bench of searches counts, and that every contender asks for the same search."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import yaml

from bench.peers.searches import BASE, SWEEP, OurSearch, PeerSearch, contenders
from bench.peers.trial import HIGHEST, LOWEST, PROPOSALS, keep, proposed
from orchestrator.sweep.file import read_sweep_file
from orchestrator.sweep.plan import make_plan
from orchestrator.sweep.presets import compose
from trainers.config import TrialConfig


def test_a_peer_s_proposals_are_counted_once_and_epochs_that_led_to_nothing_are_found(tmp_path: Path) -> None:
    """Of epochs: the first trial began again, the second went on, the third got no result."""
    (tmp_path / "proposals.log").write_text("0.001\n0.002\n0.001\n0.003\n")
    epochs = ["0.001\t1", "0.001\t2", "0.002\t1", "0.001\t1", "0.001\t2", "0.002\t2", "0.003\t1"]
    (tmp_path / "epochs.log").write_text("\n".join(epochs) + "\n")
    (tmp_path / "states.json").write_text('{"COMPLETE": 2, "RUNNING": 1}')
    for label, fid in (("0.001", 2.5), ("0.002", 1.5)):
        keep(tmp_path, label, {"classifier_fid": fid})
    peer = PeerSearch(tmp_path, [])
    assert peer.proposals() == [0.001, 0.002, 0.003]
    assert peer.found() == {0.001: 2.5, 0.002: 1.5}
    assert peer.began_again(Counter()) == 1
    assert peer.for_nothing(Counter()) == 2 + 1
    assert peer.states() == {"COMPLETE": 2, "RUNNING": 1}
    assert peer.fresh() == []


def decision(kind: str, trials: dict[str, int], **about: Any) -> str:
    entries = [{"trial_id": trial, "seed": seed} for trial, seed in trials.items()]
    return json.dumps({"kind": kind, "about": about, "rests_on": {}, "trials": entries}) + "\n"


def test_ours_are_counted_from_decisions_and_trials(tmp_path: Path) -> None:
    """Of epochs of 20 critic iterations: one trial went on after two of three, one began anew, one was not stored."""
    config = TrialConfig.from_dict(compose(["trainer=wgan_gp", "evaluation=none", "budget=60", "device=cpu"]))
    lines = [
        decision("search", {name: 0}, setting={"critic.lr": rate}) for name, rate in (("on", 0.001), ("anew", 0.002))
    ]
    lines += [decision("search", {"planned": 0}, setting={"critic.lr": 0.003})]
    lines += [decision("confirm", {"fresh": 1000}), '{"kind": "sea']
    (tmp_path / "peers" / "trials").mkdir(parents=True)
    (tmp_path / "peers" / "decisions.jsonl").write_text("".join(lines))
    for name, state, resumed in (("on", "DONE", [0, 40]), ("anew", "RUNNING", [0, 0]), ("fresh", "DONE", [0])):
        trial = tmp_path / "peers" / "trials" / name
        trial.mkdir()
        (trial / "config.yaml").write_text(yaml.safe_dump(config.to_dict()))
        attempts = [{"resumed_at": each} for each in resumed]
        (trial / "status.json").write_text(json.dumps({"state": state, "attempts": attempts}))
        records = [{"epoch": epoch, "classifier_fid": 10.0 - epoch} for epoch in range(4)]
        (trial / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    ours = OurSearch(tmp_path)
    before = ours.done()
    assert ours.proposals() == [0.001, 0.002, 0.003]
    assert ours.found() == {0.001: 7.0}
    assert ours.began_again(before) == 1
    assert ours.for_nothing(before) == (1 + 3) + 3
    assert ours.states() == {"DONE": 2, "RUNNING": 1}
    assert ours.fresh() == [7.0]


def test_a_peer_trains_what_ours_trains(tmp_path: Path) -> None:
    file = tmp_path / "peers.yaml"
    file.write_text(SWEEP)
    plan = make_plan(read_sweep_file(file))
    assert plan.growing is not None
    (group,) = plan.growing.groups
    dimension = group.search.space["critic.lr"]
    assert (dimension.low, dimension.high, group.search.trials) == (LOWEST, HIGHEST, PROPOSALS)
    (tmp_path / "trials.json").write_text(json.dumps([{"config": TrialConfig.from_dict(compose(BASE)).to_dict()}]))
    trial = proposed(tmp_path, 0.002)
    assert trial["label"] == "0.002"
    theirs, ours = TrialConfig.from_dict(trial["config"]), TrialConfig.from_dict(dict(group.config))
    assert theirs.critic.lr == 0.002
    assert theirs.to_dict() | {"critic": None} == ours.to_dict() | {"critic": None}
    assert (tmp_path / "proposals.log").read_text() == "0.002\n"


def test_every_search_is_told_apart_by_its_folder(tmp_path: Path) -> None:
    for make in contenders().values():
        assert any(str(tmp_path) in word for word in make(tmp_path).command(again=False))
