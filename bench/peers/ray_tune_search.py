"""A search by Ray Tune and its ``OptunaSearch``, as in its guides: ``python -m bench.peers.ray_tune_search FOLDER``.

The same command again goes on by ``Tuner.restore``. A process is used for many trials, which saves its start.
No time is measured here.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from bench.peers.trial import HIGHEST, LOWEST, PROPOSALS, keep, proposed, train


def main(folder: Path) -> None:
    os.environ.update(RAY_AIR_NEW_OUTPUT="0", RAY_USAGE_STATS_ENABLED="0")
    import ray
    from ray import tune
    from ray.tune.search.optuna import OptunaSearch

    def trainable(config: dict[str, Any]) -> None:
        import torch

        trial = proposed(folder, config["rate"])

        def report(training: Any, metrics: dict[str, float]) -> None:
            if "classifier_fid" not in metrics:
                return
            if training.finished:
                keep(folder, trial["label"], metrics)
            with tempfile.TemporaryDirectory() as name:
                torch.save(training.state_dict(), Path(name) / "state.pt")
                tune.report(metrics, checkpoint=tune.Checkpoint.from_directory(name))

        state = None
        if (checkpoint := tune.get_checkpoint()) is not None:
            with checkpoint.as_directory() as name:
                state = torch.load(Path(name) / "state.pt", weights_only=True)
        train(folder, trial, report, state)

    ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    experiment = str(folder / "tune" / "search")
    resources = tune.with_resources(trainable, {"cpu": 1})
    if tune.Tuner.can_restore(experiment):
        tuner = tune.Tuner.restore(experiment, resources, restart_errored=True)
    else:
        search = tune.TuneConfig(
            search_alg=OptunaSearch(seed=0),
            metric="classifier_fid",
            mode="min",
            num_samples=PROPOSALS,
            max_concurrent_trials=os.cpu_count(),
            reuse_actors=True,
        )
        where = tune.RunConfig(name="search", storage_path=str(folder / "tune"), verbose=0)
        space = {"rate": tune.loguniform(LOWEST, HIGHEST)}
        tuner = tune.Tuner(resources, param_space=space, tune_config=search, run_config=where)
    results = tuner.fit()
    states = {"TERMINATED": results.num_terminated, "ERROR": results.num_errors}
    (folder / "states.json").write_text(json.dumps(states))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
