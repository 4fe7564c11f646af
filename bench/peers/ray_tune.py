"""Bare Ray Tune, as in its guides: ``python -m bench.peers.ray_tune FOLDER``. The same command again resumes it."""

from __future__ import annotations

import logging
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from bench.peers.trial import CHECKPOINT_EPOCHS, keep, train, trials


def main(folder: Path) -> None:
    os.environ.update(RAY_AIR_NEW_OUTPUT="0", RAY_USAGE_STATS_ENABLED="0")
    import ray
    from ray import tune
    from ray.air.integrations.mlflow import MLflowLoggerCallback

    def trainable(config: dict[str, Any]) -> None:
        import torch

        def report(training: Any, metrics: dict[str, float]) -> None:
            if training.finished:
                keep(folder, config["trial"]["label"], metrics)
            if not training.finished and training.epoch % CHECKPOINT_EPOCHS:
                tune.report(metrics)
                return
            with tempfile.TemporaryDirectory() as name:
                torch.save(training.state_dict(), Path(name) / "state.pt")
                tune.report(metrics, checkpoint=tune.Checkpoint.from_directory(name))

        state = None
        if (checkpoint := tune.get_checkpoint()) is not None:
            with checkpoint.as_directory() as name:
                state = torch.load(Path(name) / "state.pt", weights_only=True)
        train(folder, config["trial"], report, state)

    ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    experiment = str(folder / "tune" / "peers")
    resources = tune.with_resources(trainable, {"cpu": 1})
    space = {"trial": tune.grid_search(trials(folder))}
    if tune.Tuner.can_restore(experiment):
        tuner = tune.Tuner.restore(experiment, resources, restart_errored=True, param_space=space)
    else:
        mirror = MLflowLoggerCallback(tracking_uri=f"sqlite:///{folder / 'mlflow.db'}", experiment_name="peers")
        where = tune.RunConfig(name="peers", storage_path=str(folder / "tune"), callbacks=[mirror], verbose=0)
        tuner = tune.Tuner(resources, param_space=space, run_config=where)
    tuner.fit()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
