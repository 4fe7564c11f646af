"""Measures checkpoints of trials again, or a folder of images. Writes nothing but the cache."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.errors import UserError, disk_errors
from orchestrator.results.scores import Score, Scores
from orchestrator.store import checkpoints
from orchestrator.store.runs import Runs, cache_dir, folder_of, location, sweep_names
from orchestrator.store.selection import one_entry
from orchestrator.store.sweep import SweepStore
from orchestrator.store.trial import TrialStore
from orchestrator.store.weights import with_weights
from orchestrator.sweep.presets import compose, option_paths, parse_override
from trainers.config import TrialConfig, identity_of, is_runtime_option
from trainers.datasets import Dataset
from trainers.evaluation import FeatureEvaluation
from trainers.metrics import EVALUATION_SECONDS
from trainers.parts import ConfigError, nearest

FILES_OF = {"last": ("checkpoint.pt", "checkpoint-previous.pt"), "best": ("best.pt",)}
"""The files of a trial that may be measured, by the value of ``--checkpoint``."""


@dataclass(frozen=True)
class Request:
    """The arguments of ``orchestrator evaluate``. ``checkpoint`` is ``last`` or ``best``."""

    target: str
    overrides: tuple[str, ...] = ()
    trials: tuple[str, ...] = ()
    checkpoint: str = "last"
    runs: Runs = Path("runs")
    feature_weights: Path | None = None


@dataclass(frozen=True)
class Subject:
    """A trial and the checkpoint to measure."""

    label: str
    trial: TrialStore
    file: Path


def evaluate(request: Request, tell: Callable[[str], None] = lambda text: None) -> Scores:
    """Measures what the request names. ``tell`` is called with each warning.

    If a sweep and a folder have the same name, the sweep is measured. Trials of a sweep that cannot be measured are
    listed in ``missing``. Raises :class:`UserError` or :class:`~trainers.parts.ConfigError` if nothing can be measured.
    """
    if request.checkpoint not in FILES_OF:
        raise UserError(f"--checkpoint: expected {' or '.join(FILES_OF)}, got '{request.checkpoint}'")
    for text in request.overrides:
        parse_override(text)
    path = Path(request.target)
    is_sweep = path.name == request.target and path.name in sweep_names(request.runs)
    if request.trials and not is_sweep:
        there = location(request.runs)
        raise UserError(f"--trial needs a sweep, and there is no sweep called '{request.target}' in '{there}'")
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_: tell(f"note: {message}")
        if is_sweep:
            return _of_subjects(_of_sweep(request), request)
        if path.is_file():
            return _of_subjects([_of_file(path)], request)
        if (path / "config.yaml").is_file():
            trial = TrialStore(path)
            return _of_subjects([Subject(trial.trial_id, trial, _file(trial, request.checkpoint))], request)
        if path.is_dir():
            return _of_folder(path, request)
    known = sweep_names(request.runs)
    raise UserError(
        f"'{request.target}' is neither a sweep in '{location(request.runs)}' nor a checkpoint nor a folder"
        + (nearest(request.target, known) if known else "")
    )


def _of_sweep(request: Request) -> list[Subject]:
    store = SweepStore.open(request.runs, request.target, FILES_OF[request.checkpoint])
    entries = store.entries()
    if request.trials:
        entries = [one_entry(store, entries, text) for text in request.trials]
    trials = [(entry, store.trial(entry.trial_id)) for entry in entries]
    return [
        Subject(f"{entry.label} seed={entry.seed}", trial, _file(trial, request.checkpoint)) for entry, trial in trials
    ]


def _of_file(path: Path) -> Subject:
    trial = TrialStore(path.absolute().parent)
    if not (trial.path / "config.yaml").is_file():
        raise UserError(f"'{path}': expected config.yaml, the trial's configuration, in the checkpoint's folder")
    return Subject(trial.trial_id, trial, path)


def _file(trial: TrialStore, which: str) -> Path:
    """The trial's ``last`` or ``best`` checkpoint. While a running trial replaces its last one, the one before it."""
    if which == "best":
        return trial.best_file
    return trial.checkpoint_file if trial.checkpoint_file.exists() else trial.previous_checkpoint_file


def _of_subjects(subjects: list[Subject], request: Request) -> Scores:
    scores, problems = None, []
    for subject in subjects:
        try:
            state = read_state(subject, request.checkpoint)
        except UserError as error:
            problems.append(str(error))
            continue
        config = _config(subject.trial, request)
        scores = scores or _scores(config, request)
        scores.scores.append(_measured(subject, state, config, scores, cache_dir(folder_of(request.runs))))
    if scores is None:
        raise UserError("; ".join(problems[:3]) + (f"; and {len(problems) - 3} more" if len(problems) > 3 else ""))
    scores.missing += problems
    return scores


def read_state(subject: Subject, which: str) -> dict[str, Any]:
    """The state in a checkpoint, verified. Raises :class:`UserError` if it is missing, damaged or another trial's."""
    name = f"{subject.trial.trial_id}/{subject.file.name}"
    try:
        state = checkpoints.read(subject.file)
    except FileNotFoundError:
        raise UserError(f"trial {subject.trial.trial_id} ({subject.label}) has no {which} checkpoint") from None
    except checkpoints.Unreadable as problem:
        raise UserError(f"{name} cannot be used: {problem}") from None
    except OSError as error:
        raise UserError(f"{name} cannot be read: {error.strerror}") from None
    try:
        identity = identity_of(subject.trial.config())
    except ConfigError as error:
        raise UserError(f"{subject.trial.path / 'config.yaml'}: {error}") from None
    if not checkpoints.belongs(subject.trial, state, identity):
        raise UserError(f"{name} belongs to trial {state['identity']}, but config.yaml is that of trial {identity}")
    return state


def _config(trial: TrialStore, request: Request) -> TrialConfig:
    """The stored configuration with the request's overrides. Only measuring can be changed, not training."""
    values = trial.config()
    overrides = [parse_override(text) for text in request.overrides]
    for override in overrides:
        key = override.key_or_group
        if key == "evaluation":
            values["evaluation"] = compose([f"evaluation={override.value()}"])["evaluation"]
        elif not key.startswith("evaluation.") and key != "probes" and not is_runtime_option(key, values):
            problem = "only the measuring of a trained trial can be changed: evaluation=NAME, probes=[NAME]"
            raise UserError(f"'{override.input_line}': {problem}")
    for override in overrides:
        if (key := override.key_or_group) == "evaluation":
            continue
        group, _, option = key.rpartition(".")
        options = values[group] if group else values
        if option not in options:
            raise UserError(f"'{override.input_line}': there is no such option{nearest(key, option_paths(values))}")
        options[option] = override.value()
    return TrialConfig.from_dict(with_weights(values, request.feature_weights))


def _scores(config: TrialConfig, request: Request) -> Scores:
    """An empty set of scores. Raises :class:`UserError` if the evaluation lacks anything that it needs."""
    from trainers.devices import check_device

    evaluation = config.evaluation
    if not config.metrics:
        raise UserError(f"the evaluation '{evaluation.name}' measures nothing: choose one with evaluation=NAME")
    check_device(config.device)
    evaluation.prepare()
    cache = cache_dir(folder_of(request.runs))
    with contextlib.suppress(OSError):
        cache.mkdir(parents=True, exist_ok=True)
    if not os.access(cache, os.W_OK):
        raise UserError(
            f"'{cache}', the cache of real images' features, cannot be written; choose another place with --runs-dir"
        )
    higher = frozenset(metric.name for metric in config.metrics if metric.direction == "max")
    return Scores(config.dataset.name, evaluation.name, higher)


def _measured(subject: Subject, state: dict[str, Any], config: TrialConfig, scores: Scores, cache: Path) -> Score:
    from trainers.training import Training

    training = Training(config, cache_dir=cache)
    training.load_state_dict(state["training"])
    metrics = training.evaluate().metrics
    del metrics[EVALUATION_SECONDS.name]
    _tell_reference(scores, training.evaluator)
    return Score(subject.label, metrics, subject.trial.trial_id, subject.file.name, training.epoch, training.iteration)


def _of_folder(folder: Path, request: Request) -> Scores:
    import torch

    from trainers.devices import resolve_device
    from trainers.evaluation.pictures import load_images

    for override in map(parse_override, request.overrides):
        if (key := override.key_or_group) != "device" and key.partition(".")[0] not in ("dataset", "evaluation"):
            problem = "a folder of images takes only these overrides: dataset=NAME, evaluation=NAME, device=NAME"
            raise UserError(f"'{override.input_line}': {problem}")
    if request.checkpoint != "last":
        raise UserError(f"--checkpoint {request.checkpoint}: '{folder}' is a folder of images and has no checkpoints")
    if not any(text.startswith("dataset=") for text in request.overrides):
        raise UserError(f"'{folder}' is a folder of images; name the dataset to compare with, such as dataset=digits")
    cache = cache_dir(folder_of(request.runs))
    with disk_errors():
        config = TrialConfig.from_dict(with_weights(compose([*request.overrides]), request.feature_weights), cache)
    if len(config.dataset.shape) != 3:
        raise UserError(f"'{folder}' is a folder of images, but dataset={config.dataset.name} has points, not images")
    scores = _scores(config, request)
    device = resolve_device(config.device)
    torch.set_num_threads(config.threads)
    if not isinstance(config.evaluation, FeatureEvaluation):
        raise UserError(
            f"the evaluation '{config.evaluation.name}' cannot measure images; choose classifier or inception"
        )
    images = load_images(folder, config.evaluation.samples, config.dataset.shape, **_decoding(config.dataset, cache))
    with disk_errors():
        config.dataset.prepare(cache)
    evaluator = config.evaluation.evaluator(config.dataset.load(cache), config.objective.cost, cache, device)
    scores.scores.append(Score(str(folder), evaluator.measure(images)))
    _tell_reference(scores, evaluator)
    return scores


def _decoding(dataset: Dataset, cache: Path) -> dict[str, Any]:
    """The options of ``load_images`` that decode a folder as the dataset's own files were decoded."""
    from trainers.data.image_folder import ImageFolder

    return {"resize": True, "bits": dataset.bits(cache)} if isinstance(dataset, ImageFolder) else {}


def _tell_reference(scores: Scores, evaluator: Any) -> None:
    """Fills in the floor and what the values depend on, once: they are the same for all scores."""
    if evaluator is not None and not scores.floor:
        scores.floor, scores.info = evaluator.floor(), evaluator.info
