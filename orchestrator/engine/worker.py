"""What a worker process of Ray does for a trial.

Ray sends a function of a module by the module's name, so the worker would have to find our modules before any code of
ours could say where they are. The functions that Ray calls here are nested: of these Ray sends the code. They first
make sure that the worker runs the driver's code, and touch nothing of a trial otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any


def begin_on_worker() -> Callable[..., None]:
    """The function that a worker calls for each trial: :func:`tune_trial`, after the imports that it needs.

    A worker that runs other code or versions than the driver refuses the trial. One that cannot import a library that
    a trial needs says so.
    """
    why_not = comparison()

    def begin(config: dict[str, Any], path: Sequence[str] | None, what: Mapping[str, Any], **told: Any) -> None:
        import importlib

        import ray
        from ray import tune

        if refused := why_not(path, what):
            tune.report({"refused": refused, "node": ray.get_runtime_context().get_node_id()})
            return
        try:
            ours = importlib.import_module("orchestrator.engine.worker")
            for name in ("orchestrator.trial.run", "orchestrator.trial.workplace", "trainers.training"):
                importlib.import_module(name)
        except Exception as error:  # a broken library may raise anything
            tune.report({"broken": f"{type(error).__name__}: {error}"})
            return
        ours.tune_trial(config, **told)

    return begin


def fill_on_worker() -> Callable[..., None]:
    """The function that a worker calls to make the cache of an object store. It does nothing where code differs."""
    why_not = comparison()

    def fill(path: Sequence[str] | None, what: Mapping[str, Any], *arguments: Any) -> None:
        import importlib

        if not why_not(path, what):
            importlib.import_module("orchestrator.trial.workplace").fill_cache(*arguments)

    return fill


def comparison() -> Callable[[Sequence[str] | None, Mapping[str, Any]], str | None]:
    """The function by which a worker finds our code, and compares what it runs with ``what`` the driver runs.

    ``path`` is the driver's search path for modules, which a local Ray's workers take. Our packages are imported from
    the driver's folders, even if others come first in the path. None leaves the path to a cluster's nodes.
    """

    def why_not(path: Sequence[str] | None, what: Mapping[str, Any]) -> str | None:
        import importlib
        import os
        import sys

        try:
            if path is not None:
                folders = what["code"]["folders"]
                sys.path[:] = [*dict.fromkeys(map(os.path.dirname, folders.values())), *path]
                for name in folders:
                    importlib.import_module(name)
                sys.path[:] = path
            placement = importlib.import_module("orchestrator.engine.placement")
            return placement.why_not_here(what, same_files=path is not None)
        except Exception as error:  # other code may raise anything
            return f"cannot run this command's code: {type(error).__name__}: {error}"

    return why_not


def tune_trial(config: dict[str, Any], runs: str, sweep: str, metric: str | None) -> None:
    """Runs one trial on a worker. Reports to early stopping every stored epoch that has the ``metric`` it watches."""
    from ray import tune

    from orchestrator.store.runs import runs_at
    from orchestrator.trial.run import run_trial
    from orchestrator.trial.workplace import trial_at_hand

    def report(record: dict[str, Any]) -> None:
        if metric is not None and metric in record:
            tune.report({"epoch": record["epoch"], "iteration": record["iteration"], metric: record[metric]})

    with trial_at_hand(runs_at(runs, asking=False), sweep, config["trial_id"]) as (trial, cache, should_stop):
        state = run_trial(trial, cache, should_stop=should_stop, on_epoch=report, gpus=config["gpus"])
    tune.report({"state": str(state)})
