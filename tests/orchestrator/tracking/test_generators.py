"""The final generator of a trial as an MLflow model, which samples in a process without this package."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import environment
from hand_made import make_sweep
from mlflow_dump import dump
from small_trials import create

from orchestrator.store.states import State
from orchestrator.store.sweep import SweepStore
from orchestrator.store.trial import TrialStore
from orchestrator.tracking.address import quiet_client
from orchestrator.tracking.generators import Generator, NoGenerator, final_generator, save_generator
from orchestrator.tracking.mirror import GENERATOR, Mirror
from orchestrator.trial.run import run_trial
from trainers.config import TrialConfig
from trainers.networks import Mlp
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
    trial = TrialStore(tmp_path / "trial")
    shutil.copytree(trials(trained)["dense"].path, trial.path)
    trial.checkpoint_file.unlink()
    if content is not None:
        trial.checkpoint_file.write_bytes(content)
    with pytest.raises(NoGenerator, match=why):
        final_generator(trial)


def test_where_the_opponent_was_the_data_there_is_no_generator(tmp_path: Path) -> None:
    trial = create(tmp_path / "trial", opponent="data")
    with pytest.raises(NoGenerator, match="the critic's opponent was the data"):
        final_generator(trial)


def test_generators_of_one_architecture_share_a_graph_and_not_their_weights(tmp_path: Path) -> None:
    from mlflow.models import Model

    network, shape = Mlp(generator_widths=(4,), latent_size=3), (2,)  # points in the plane
    modules = [network.build_generator(shape) for _ in range(3)]
    for number, module in enumerate(modules):
        save_generator(Generator(network, shape, module.state_dict(), 1), tmp_path / str(number), Model())
    noise = torch.randn(7, 3)
    for number, module in enumerate(modules):
        loaded = torch.export.load(tmp_path / str(number) / "data" / "model.pt2").module()
        assert torch.equal(loaded(noise), module(noise))
