"""The final generator of a trial as an MLflow model, which samples in a process without this package."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import CommandLine, environment, wait_until
from hand_made import make_sweep
from mlflow_dump import dump
from rich.console import Console
from small_trials import create

from orchestrator.driver.conclusion import conclude
from orchestrator.driver.mirroring import MirrorThread
from orchestrator.driver.options import Options
from orchestrator.store import checkpoints
from orchestrator.store.states import State
from orchestrator.store.sweep import SweepStore
from orchestrator.store.trial import TrialStore
from orchestrator.tracking.address import quiet_client
from orchestrator.tracking.generators import PROGRAM, NoGenerator, Saved, save_generator
from orchestrator.tracking.mirror import Mirror
from orchestrator.tracking.models import GENERATOR
from orchestrator.trial.run import run_trial
from trainers.config import TrialConfig
from trainers.training import Training

pytestmark = pytest.mark.long

SWEEP = """\
name: hand
base: [dataset=digits, evaluation=none, batch_size=64, budget=4, evaluation.times=1, device=cpu]
variants:
  images: {base: [network=qp_dcgan, 'network.generator_widths=[8, 4]', 'network.critic_widths=[4]', generator.ema=0.5]}
  dense: {base: [network=mlp, 'network.generator_widths=[8]', 'network.critic_widths=[8]']}
  atoms: {base: [network=atoms, 'network.critic_widths=[8]']}
"""
KINDS = ("images", "dense", "atoms")
LOAD = """
import json, sys
import mlflow, torch
uri, size, *runs = sys.argv[1:]
mlflow.set_tracking_uri(uri)
for run in runs:
    generator = mlflow.pytorch.load_model(run)
    signature = mlflow.models.get_model_info(run).signature
    (inputs,), (outputs,) = signature.inputs.inputs, signature.outputs.inputs
    noise = torch.randn(5, inputs.shape[1], generator=torch.Generator().manual_seed(7))
    served = mlflow.pyfunc.load_model(run).predict(noise.numpy())
    samples = generator(noise)
    assert torch.equal(samples, torch.from_numpy(served))
    print(json.dumps([inputs.shape, outputs.shape, generator(noise[:1]).shape, samples.tolist()]))
print([name for name in sys.modules if name.startswith(("trainers", "orchestrator"))])
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> SweepStore:
    """A few iterations of every kind of generator, mirrored."""
    store = make_sweep(tmp_path_factory.mktemp("trained"), SWEEP)
    for entry in store.entries():
        assert run_trial(store.trial(entry.trial_id), store.cache_dir) is State.DONE
    shutil.copy(empty_database, store.runs_dir / "mlflow.db")
    Mirror(store, uri_of(store)).finish()
    return store


def uri_of(store: SweepStore) -> str:
    return f"sqlite:///{store.runs_dir / 'mlflow.db'}"


def trials(store: SweepStore) -> dict[str, TrialStore]:
    return {entry.variant: store.trial(entry.trial_id) for entry in store.entries()}


def runs(store: SweepStore) -> dict[str, dict[str, Any]]:
    return {run["tags"]["variant"]: run for run in dump(uri_of(store), "hand").values() if "variant" in run["tags"]}


def test_a_fresh_process_loads_every_kind_of_generator_and_samples_what_training_would(
    trained: SweepStore, tmp_path: Path
) -> None:
    addresses = [f"runs:/{runs(trained)[kind]['id']}/{GENERATOR}" for kind in KINDS]
    program = [sys.executable, "-c", LOAD, uri_of(trained), "5", *addresses]
    ran = subprocess.run(program, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    *lines, ours = ran.stdout.splitlines()
    assert ours == "[]"  # none of our code was asked for
    for kind, line in zip(KINDS, lines, strict=True):
        trial = trials(trained)[kind]
        config = TrialConfig.from_dict(trial.config())
        training = Training(config, cache_dir=trained.cache_dir)
        training.load_state_dict(torch.load(trial.checkpoint_file, weights_only=True)["training"])
        noise = torch.randn(5, config.network.latent_size, generator=torch.Generator().manual_seed(7))
        evaluated = training.evaluated_generator
        inputs, outputs, alone, samples = json.loads(line)
        assert inputs == [-1, config.network.latent_size]
        assert outputs == [-1, *config.dataset.shape]
        assert alone == [1, *config.dataset.shape]
        with torch.no_grad():
            expected = evaluated.eval()(noise)
        torch.testing.assert_close(torch.tensor(samples), expected)  # another process may use other threads


def test_each_run_tells_where_its_generator_is_and_a_second_time_changes_nothing(trained: SweepStore) -> None:
    before = dump(uri_of(trained), "hand")
    found = runs(trained)
    for kind in KINDS:
        assert found[kind]["tags"][GENERATOR] == "runs:/ID/generator"
        assert [(model["name"], model["status"]) for model in found[kind]["models"]] == [("generator", "READY")]
    Mirror(trained, uri_of(trained)).finish()
    assert dump(uri_of(trained), "hand") == before


def test_what_an_interrupted_time_left_is_made_whole_and_only_once(trained: SweepStore, tmp_path: Path) -> None:
    """For one run the driver died after it made the model's entry, for another before it tagged the run."""
    shutil.copytree(trained.runs_dir, tmp_path / "runs")
    store = SweepStore(tmp_path / "runs", "hand")
    uri = uri_of(store)
    Mirror(store, uri).finish()  # at its new place
    before = runs(store)
    client = quiet_client(uri)
    (experiment,) = client.search_experiments(filter_string="name = 'hand'")
    for kind in ("dense", "atoms"):
        client.delete_tag(before[kind]["id"], GENERATOR)
    client.delete_logged_model(before["dense"]["models"][0]["id"])
    client.create_logged_model(experiment.experiment_id, GENERATOR, before["dense"]["id"])
    Mirror(store, uri).finish()
    after = runs(store)
    assert after["atoms"] == before["atoms"]
    (made,) = after["dense"]["models"]
    assert (made["status"], made["id"] != before["dense"]["models"][0]["id"]) == ("READY", True)
    trials(store)["dense"].restart()
    Mirror(store, uri).finish()
    models = client.search_logged_models([experiment.experiment_id])
    assert before["dense"]["id"] not in {model.source_run_id for model in models}  # it went with its run


def test_an_interrupted_driver_leaves_generators_to_the_next_one(trained: SweepStore, tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    shutil.copy(trained.runs_dir / "mlflow.db", tmp_path / "mlflow.db")
    client = quiet_client(uri)
    for run in runs(trained).values():
        client.delete_run(run["id"])
    Mirror(trained, uri).finish(generators=False)
    made = {name: run for name, run in dump(uri, "hand").items() if name != "hand"}
    assert len(made) == 3
    assert not any(run["models"] or GENERATOR in run["tags"] for run in made.values())


@pytest.mark.parametrize(
    ("content", "why"),
    [(None, "checkpoint.pt has been deleted"), (b"cut", "checkpoint.pt cannot be used: it has no checksum")],
)
def test_without_its_checkpoint_a_trial_has_no_generator(
    trained: SweepStore, tmp_path: Path, content: bytes | None, why: str
) -> None:
    checkpoint = tmp_path / "checkpoint.pt"
    if content is not None:
        checkpoint.write_bytes(content)
    with pytest.raises(NoGenerator, match=why):
        save_generator(trials(trained)["dense"].config(), checkpoint, tmp_path / "model.pt2")


def test_where_the_opponent_was_the_data_there_is_no_generator(tmp_path: Path) -> None:
    trial = create(tmp_path / "trial", opponent="data")
    with pytest.raises(NoGenerator, match="the critic's opponent was the data"):
        save_generator(trial.config(), trial.checkpoint_file, tmp_path / "model.pt2")


def test_generators_of_one_architecture_share_a_graph_and_not_their_weights(
    trained: SweepStore, tmp_path: Path
) -> None:
    trial = trials(trained)["dense"]
    config = TrialConfig.from_dict(trial.config())
    modules = [config.network.build_generator(config.dataset.shape).eval() for _ in range(3)]
    state = torch.load(trial.checkpoint_file, weights_only=True)
    for number, module in enumerate(modules):
        checkpoints.save(tmp_path / "checkpoint.pt", _State(state["training"] | {"generator": module.state_dict()}), "")
        saved = save_generator(trial.config(), tmp_path / "checkpoint.pt", tmp_path / f"{number}.pt2")
        assert saved == Saved(config.network.latent_size, config.dataset.shape, 1, str(torch.__version__))
    noise = torch.randn(7, config.network.latent_size)
    for number, module in enumerate(modules):
        loaded = torch.export.load(tmp_path / f"{number}.pt2").module()
        assert torch.equal(loaded(noise), module(noise))


class _State:
    """What a checkpoint takes of a training."""

    def __init__(self, state: dict[str, Any]) -> None:
        self._state = state

    def state_dict(self) -> dict[str, Any]:
        return self._state


# --- a process of its own -------------------------------------------------------------------------------------------


def without_generators(trained: SweepStore, folder: Path) -> tuple[SweepStore, str]:
    """The trained sweep at another place, and an MLflow that has all of it but the generators."""
    shutil.copytree(trained.runs_dir, folder / "runs", ignore=shutil.ignore_patterns("mlflow*"))
    store = SweepStore(folder / "runs", "hand")
    return store, uri_of(store)


def children_of(parent: int, command: str) -> list[int]:
    """The child processes of a process whose command contains a text."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has just ended
            if int((folder / "stat").read_text().rpartition(")")[2].split()[1]) == parent:
                found += [int(folder.name)] if command in (folder / "cmdline").read_bytes().decode() else []
    return found


def test_torch_that_ends_its_process_costs_one_generator_and_no_trial(
    trained: SweepStore, tmp_path: Path, empty_database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As ``abort`` in C++ does it. The sweep's exit code stands, and ``sync`` makes up for it."""
    store, uri = without_generators(trained, tmp_path)
    shutil.copy(empty_database, store.runs_dir / "mlflow.db")
    (tmp_path / "aborting").mkdir()
    (tmp_path / "aborting" / "sitecustomize.py").write_text(ABORTING)
    first = trials(store)["images"]
    with monkeypatch.context() as patch:
        patch.setenv("PYTHONPATH", str(tmp_path / "aborting"), prepend=os.pathsep)
        patch.setenv("ABORT_AT", first.trial_id)
        console = Console(file=io.StringIO(), width=400)
        assert conclude(store, MirrorThread(store, uri), console, Options(uri)) == 0
    assert isinstance(console.file, io.StringIO)
    (behind,) = [line for line in console.file.getvalue().splitlines() if line.startswith("MLflow is behind")]
    why = f"1 of 3 generators could not be saved; {first.trial_id}: the process that writes generators was ended by"
    assert behind.startswith(f"MLflow is behind ({why} SIGABRT); update it with: orchestrator sync hand")
    found = runs(store)
    assert {kind: len(found[kind]["models"]) for kind in KINDS} == {"images": 0, "dense": 1, "atoms": 1}
    assert {run["status"] for run in found.values()} == {"FINISHED"}
    assert children_of(os.getpid(), PROGRAM) == []


ABORTING = """
import os, sys, threading, time

def abort():
    while True:
        module = sys.modules.get("orchestrator.store.checkpoints")
        if hasattr(module, "read"):
            break
        time.sleep(0.001)
    real = module.read
    module.read = lambda path: os.abort() if os.environ["ABORT_AT"] in str(path) else real(path)

if "-c" in sys.orig_argv and "answer_requests" in str(sys.orig_argv):
    threading.Thread(target=abort, daemon=True).start()
"""


def test_where_temporary_files_do_not_fit_the_error_is_told_and_the_way_on(
    trained: SweepStore,
    tmp_path: Path,
    empty_database: Path,
    monkeypatch: pytest.MonkeyPatch,
    command_line: CommandLine,
) -> None:
    """torch itself would end the process here."""
    store, uri = without_generators(trained, tmp_path)
    shutil.copy(empty_database, store.runs_dir / "mlflow.db")
    Mirror(store, uri).finish(generators=False)
    small = tmp_path / "small"
    small.mkdir()
    mounting = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8k", "tmpfs", small], check=False, capture_output=True
    )
    if mounting.returncode:
        pytest.skip("mount is not permitted here")
    try:
        monkeypatch.setattr(tempfile, "tempdir", str(small))
        code, _, errors = command_line("sync", "hand", "--runs-dir", store.runs_dir)
    finally:
        subprocess.run(["umount", "--lazy", small], check=True)
    assert code == 2
    assert re.fullmatch(
        r"orchestrator: 3 of 3 generators could not be saved; \w{12}: .*No space left on device.*\n", errors
    )
    monkeypatch.setattr(tempfile, "tempdir", None)
    assert command_line("sync", "hand", "--runs-dir", store.runs_dir)[0] == 0
    assert [len(runs(store)[kind]["models"]) for kind in KINDS] == [1, 1, 1]


DRIVER = """
import json, sys
from pathlib import Path
from orchestrator.tracking.generators import GeneratorProcess
config, checkpoint, file = sys.argv[1:]
with GeneratorProcess() as process:
    process.save(json.loads(config), Path(checkpoint), Path(file))
    assert "torch" not in sys.modules
    print(process._process.pid, flush=True)
    sys.stdin.readline()
"""


def test_the_process_ends_with_a_parent_that_is_killed(trained: SweepStore, tmp_path: Path) -> None:
    """The parent has not loaded torch, and the process imports nothing from the working directory."""
    trial = trials(trained)["dense"]
    words = [json.dumps(trial.config()), trial.checkpoint_file, tmp_path / "model.pt2"]
    (tmp_path / "torch.py").write_text("raise SystemExit('imported from the working directory')")
    parent = subprocess.Popen(
        [sys.executable, "-P", "-c", DRIVER, *map(str, words)],
        cwd=tmp_path,
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    assert (tmp_path / "model.pt2").stat().st_size
    parent.kill()
    parent.communicate()
    wait_until(lambda: not Path(f"/proc/{child}").exists() or "Z" in Path(f"/proc/{child}/stat").read_text().split()[2])
