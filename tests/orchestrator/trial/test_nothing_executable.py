"""Reading files never runs code, no name leads out of the runs directory, and Ray refuses callers without token."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from command_line import Cluster, CommandLine, environment
from hand_made import POINTS, finish, make_sweep, write_file
from PIL import Image

from orchestrator.errors import UserError
from orchestrator.store.states import State
from orchestrator.store.sweep import SweepStore
from orchestrator.trial.run import run_trial

WITH_CLASSIFIER = """\
name: pictures
base: [dataset=digits, budget=40, device=cpu, evaluation.samples=100, "network.critic_widths=[8]"]
"""


@pytest.mark.long
def test_what_a_trial_leaves_is_text_pictures_and_checkpoints_without_code(tmp_path: Path) -> None:
    store = make_sweep(tmp_path, WITH_CLASSIFIER)
    (entry,) = store.entries()
    assert run_trial(store.trial(entry.trial_id), store.cache_dir) is State.DONE
    files = [path for path in store.runs_dir.rglob("*") if path.is_file()]
    kinds = {path.suffix for path in files}
    assert {".pt", ".json", ".jsonl", ".yaml", ".png", ".txt", ".safetensors"} <= kinds
    assert kinds <= {".pt", ".json", ".jsonl", ".yaml", ".png", ".txt", ".safetensors", ".lock"}
    for path in files:
        if path.suffix == ".pt":
            assert torch.load(path, weights_only=True)
        else:
            assert not zipfile.is_zipfile(path)
            assert not path.read_bytes().startswith(b"\x80")  # how a pickle begins


@pytest.mark.parametrize("file", ["config.yaml"])
def test_a_stored_configuration_cannot_call_anything(store: SweepStore, tmp_path: Path, file: str) -> None:
    trial = store.trial(store.entries()[0].trial_id)
    text = (trial.path / file).read_text()
    evil = f"!!python/object/apply:pathlib.Path.touch [!!python/object/apply:pathlib.Path ['{tmp_path / 'evil'}']]"
    (trial.path / file).write_text(text + f"more: {evil}\n")
    with pytest.raises(UserError, match="config.yaml: is missing or damaged"):
        trial.config()
    assert run_trial(trial, tmp_path / "cache") is State.FAILED
    assert not (tmp_path / "evil").exists()


@pytest.mark.parametrize(
    "line",
    [
        pytest.param("grid: {penalty: [{_target_: os.system, command: touch evil}]}", id="a target as a value"),
        pytest.param("base: ['+penalty._target_=os.system']", id="a target as an override"),
        pytest.param("base: ['penalty.name=os.system']", id="a module as a part"),
        pytest.param("base: ['penalty.weight=${oc.env:HOME}']", id="the environment"),
        pytest.param("base: ['hydra.run.dir=..']", id="Hydra's own options"),
        pytest.param("base: [penalty=../../etc/passwd]", id="a preset elsewhere"),
    ],
)
def test_no_value_of_a_sweep_file_names_anything_to_call(
    tmp_path: Path, command_line: CommandLine, monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    monkeypatch.chdir(tmp_path)
    base = "" if line.startswith("base") else f"base: {POINTS}\n"
    path = write_file(tmp_path, f"name: evil\n{base}{line}\n")
    code, _, errors = command_line("sweep", path)
    assert code == 2
    assert len(errors.splitlines()) == 1
    assert [item.name for item in tmp_path.iterdir()] == ["sweep.yaml"]


@pytest.mark.parametrize("name", ["../evil", "/tmp/evil", "a/b", "..", ".", "a/../../evil", ""])
def test_no_name_leaves_the_runs_directory(
    store: SweepStore, tmp_path: Path, command_line: CommandLine, name: str
) -> None:
    finish(store, store.entries()[0], {"exact_w1": 0.5})
    before = sorted(tmp_path.rglob("*"))
    path = write_file(tmp_path / "files", f"name: '{name}'\nbase: {POINTS}\n")
    fine = write_file(tmp_path / "files", f"name: fine\nbase: {POINTS}\n", "fine.yaml")
    common = ["--runs-dir", store.runs_dir]
    for arguments in (
        ["sweep", path],
        ["sweep", fine, "--name", name],
        ["sweep", fine, f"continue_from={name}"],
        *([command, name] for command in ("resume", "stop", "sync", "prune", "export")),
        ["resume", store.name, "--trial", name],
    ):
        code, _, errors = command_line(*arguments, *common)
        assert code == 2, arguments
        assert len(errors.splitlines()) == 1, arguments
    after = [item for item in sorted(tmp_path.rglob("*")) if "files" not in item.relative_to(tmp_path).parts]
    assert after == before


POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n"
INTERPRETER = """#!/bin/sh
touch "{evil}"
cat > /dev/null
"""


@pytest.fixture
def evil(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that a PostScript interpreter makes here when it is started, as Pillow does for an EPS."""
    from PIL import EpsImagePlugin

    program = tmp_path / "bin" / "gs"
    program.parent.mkdir()
    program.write_text(INTERPRETER.format(evil=tmp_path / "evil"))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)  # it looks once
    return tmp_path / "evil"


def test_the_interpreter_would_be_started_by_pillow_alone(evil: Path, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(POSTSCRIPT)
    with pytest.raises(OSError), Image.open(tmp_path / "a.jpg") as image:  # noqa: PT011
        image.load()
    assert evil.exists()


@pytest.mark.parametrize("command", ["sweep", "evaluate", "report", "sync"])
def test_no_picture_starts_an_interpreter(
    evil: Path, tmp_path: Path, command_line: CommandLine, empty_database: Path, command: str
) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for number in range(120):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(pictures / f"{number}.png")
    for number in (200, 201):
        (pictures / f"{number}.jpg").write_bytes(POSTSCRIPT)
    folder = f"dataset=image_folder, dataset.root={pictures}, dataset.size=8, dataset.max_bad=0.5"
    file = write_file(tmp_path, f"name: folder\nbase: [{folder}, evaluation=none, device=cpu, budget=4]\n")
    store = make_sweep(tmp_path / "stored")
    for entry in store.entries():
        finish(store, entry, {"exact_w1": 0.5})
        (store.trial(entry.trial_id).samples / "epoch_000002.png").write_bytes(POSTSCRIPT)
    shutil.copy(empty_database, store.runs_dir / "mlflow.db")
    options = ["dataset=digits", "evaluation=classifier", "evaluation.samples=122"]
    arguments = {
        "sweep": [file, "--dry-run", "--runs-dir", tmp_path / "runs"],
        "evaluate": [pictures, *options, "--runs-dir", tmp_path / "runs"],
        "report": ["hand", "--runs-dir", store.runs_dir],
        "sync": ["hand", "--runs-dir", store.runs_dir],
    }
    code, _, errors = command_line(command, *arguments[command])
    assert code == {"sweep": 0, "evaluate": 2, "report": 0, "sync": 1}[command], errors
    assert not evil.exists()


ASK = """
import sys
import ray
try:
    ray.init(address=sys.argv[1], logging_level="ERROR", log_to_driver=False)
except BaseException as error:
    print("refused", type(error).__name__)
else:
    print("let in", len(ray.nodes()))
"""


@pytest.mark.long
def test_the_local_ray_lets_in_who_has_its_token(cluster: Cluster) -> None:
    """Ray's client asks for some twenty seconds before it gives up: all at once."""
    token = cluster.environment["RAY_AUTH_TOKEN"]
    changes = {
        "right": cluster.environment,
        "wrong": {**cluster.environment, "RAY_AUTH_TOKEN": "0" * len(token)},
        "none": {"RAY_AUTH_MODE": "disabled"},
    }
    asking = {
        name: subprocess.Popen(
            [sys.executable, "-c", ASK, cluster.arguments[1]],
            env=environment(RAY_gcs_rpc_server_reconnect_timeout_s="1", **changed),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for name, changed in changes.items()
    }
    for name, process in asking.items():
        told, _ = process.communicate(timeout=100)
        assert told.startswith("let in 1") is (name == "right"), told
        assert token not in told
