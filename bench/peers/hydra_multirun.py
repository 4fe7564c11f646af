"""Hydra multirun, as in its guide: ``python -m bench.peers.hydra_multirun -m +folder=FOLDER +index=0,1,2``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig

from bench.peers.trial import keep, train, trials


@hydra.main(version_base="1.3", config_path=None)
def main(options: DictConfig) -> None:
    import mlflow

    folder = Path(options.folder)
    trial = trials(folder)[options.index]
    mlflow.set_tracking_uri(f"sqlite:///{folder / 'mlflow.db'}")
    mlflow.set_experiment("peers")

    def report(training: Any, metrics: dict[str, float]) -> None:
        mlflow.log_metrics(metrics, step=training.epoch)
        if training.finished:
            keep(folder, trial["label"], metrics)

    with mlflow.start_run(run_name=trial["label"]):
        mlflow.log_params({name: str(value) for name, value in trial["config"].items()})
        train(folder, trial, report)


if __name__ == "__main__":
    main()
