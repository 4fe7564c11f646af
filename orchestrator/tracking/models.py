"""The generator of a finished trial as a model of its run in MLflow, called ``generator``."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.errors import UserError
from orchestrator.store.references import stored_metrics
from orchestrator.store.trial import TrialStore
from orchestrator.tracking.generators import GeneratorProcess, NoGenerator, Saved
from orchestrator.tracking.mlflow_private import log_output, write_model

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel, Metric
    from mlflow.models import ModelSignature

GENERATOR = "generator"
"""What a trial's model is called: ``mlflow.pytorch.load_model("runs:/RUN_ID/generator")``."""


def models_of(client: MlflowClient, experiment: str, run_id: str) -> Sequence[LoggedModel]:
    """The models of a run, also those that were never finished."""
    return client.search_logged_models([experiment], f"source_run_id = '{run_id}'")


def log_generator(
    client: MlflowClient, experiment: str, run_id: str, trial: TrialStore, process: GeneratorProcess
) -> str:
    """Logs the final generator as a model of the run, once. Returns its URI, or why there is none.

    Raises ``NotSaved`` and OSError if the generator could not be written, and MLflow's errors.
    """
    from mlflow.entities import LoggedModelStatus
    from mlflow.models import Model

    if not any(model.status == LoggedModelStatus.READY for model in models_of(client, experiment, run_id)):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name) / GENERATOR
            file = folder / "data" / "model.pt2"
            file.parent.mkdir(parents=True)
            try:
                with trial.at_hand(trial.checkpoint_file) as checkpoint:
                    saved = process.save(trial.config(), checkpoint.resolve(), file)
            except FileNotFoundError:  # in an object store
                return f"none: {trial.checkpoint_file.name} has been deleted"
            except (NoGenerator, UserError) as why:  # UserError: a damaged configuration
                return f"none: {why}"
            made = client.create_logged_model(experiment, GENERATOR, run_id)
            model = Model(made.artifact_location, run_id, model_uuid=made.model_id, model_id=made.model_id)
            model.signature = _signature(saved)
            write_model(folder, model, saved.torch)
            client.log_model_artifacts(made.model_id, str(folder))
        client.log_batch(run_id, _last_evaluated(trial, made.model_id))
        log_output(client, run_id, made.model_id, saved.epoch)
        client.finalize_logged_model(made.model_id, LoggedModelStatus.READY)
    for known in models_of(client, experiment, run_id):  # an earlier call was interrupted, or its answer got lost
        if known.status != LoggedModelStatus.READY:
            client.delete_logged_model(known.model_id)
    return f"runs:/{run_id}/{GENERATOR}"


def _signature(saved: Saved) -> ModelSignature:
    import numpy as np
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    shapes = ((saved.latent_size,), saved.shape)
    inputs, outputs = (Schema([TensorSpec(np.dtype("float32"), (-1, *shape))]) for shape in shapes)
    return ModelSignature(inputs, outputs)


def _last_evaluated(trial: TrialStore, model_id: str) -> list[Metric]:
    """The last value of each evaluation metric, as metrics of the model, so that MLflow can sort models by them."""
    from mlflow.entities import Metric

    names = stored_metrics(trial.references())
    last = {name: record for record in trial.epochs() for name in names if name in record}
    return [
        Metric(name, float(record[name]), record["timestamp"], record["epoch"], model_id)
        for name, record in last.items()
    ]
