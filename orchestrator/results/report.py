"""Writes a sweep's report: one HTML file that needs no network, no script and no other file."""

from __future__ import annotations

import base64
import shlex
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

from orchestrator.errors import UserError
from orchestrator.files import reason, write_atomically
from orchestrator.results.comparison import comparison_table
from orchestrator.results.decided import told_decisions
from orchestrator.results.figures import sweep_pictures
from orchestrator.results.formats import to_html
from orchestrator.results.verdict_text import sentences
from orchestrator.store.states import State, Status
from orchestrator.store.sweep import Entry, SweepStore
from orchestrator.sweep.document import read_document
from orchestrator.sweep.names import cell_label
from orchestrator.sweep.setting import setting_text, short_names, short_value

TEMPLATE = "report.html.jinja"
FINE = (State.DONE, State.RUNNING, State.PENDING)
SAMPLES = "samples"
"""The name of the picture that has its own section."""


@dataclass(frozen=True)
class _Trial:
    """What the store knows of one trial."""

    entry: Entry
    status: Status
    epochs: list[dict[str, Any]]

    def seconds(self, name: str) -> float:
        """The sum over the trial's epochs of ``epoch_seconds`` or ``evaluation_seconds``."""
        return sum(record.get(name, 0.0) for record in self.epochs)

    @property
    def devices(self) -> list[str]:
        """The devices of the trial's attempts."""
        return self.status.devices


def write_report(store: SweepStore, path: Path) -> Path:
    """Writes the report. Raises :class:`UserError` if the file cannot be written."""
    if path.is_dir():
        raise UserError(f"--output {path}: expected a file; this is a folder")
    text = report_html(store)
    try:
        write_atomically(path, text)
    except OSError as error:
        raise UserError(f"--output {path}: cannot be written: {reason(error)}") from None
    return path


def report_html(store: SweepStore) -> str:
    """The HTML text of a sweep's report. The sweep need not be finished. The same store gives the same text."""
    from jinja2 import Environment, StrictUndefined

    plan = store.plan()
    if not store.entries():
        why = "can be read" if store.planned() else "is decided yet"
        raise UserError(f"no trial of '{store.name}' {why}, so that there is nothing to report")
    trials = []
    for entry in store.entries():
        trial = store.trial(entry.trial_id)
        trials.append(_Trial(entry, trial.status(), trial.epochs()))
    pictures, why_none = [], ""
    try:
        pictures = sweep_pictures(store, kinds=("svg",))
    except UserError as problem:
        why_none = str(problem)
    table = comparison_table(store)
    is_confirmed = any(each.shown == "confirmed" for each in table.grown)
    explored = comparison_table(store, stage="explored") if is_confirmed else None
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string((files("orchestrator.results") / TEMPLATE).read_text(encoding="utf-8"))
    written, text = _written(store.path / "sweep.yaml")
    return template.render(
        plan=plan,
        counts=_counts(trials),
        unfinished=sum(not trial.status.state.is_result for trial in trials),
        trials=len(trials),
        settings=_settings(store, trials),
        base=_words(written),
        grid=_grid(trials, written),
        verdict=sentences(table.verdict),
        table=to_html(replace(table, verdict=None)),
        explored=None if explored is None else to_html(explored),
        decisions=told_decisions(store),
        figures=[picture for picture in pictures if picture.name != SAMPLES],
        samples=[picture for picture in pictures if picture.name == SAMPLES],
        why_none=why_none,
        problems=[trial for trial in trials if trial.status.error or trial.status.state not in FINE],
        costs=_costs(trials),
        copied=_number_of(trial.status.copied_from for trial in trials if trial.status.copied_from),
        continued=_number_of(origin["sweep"] for trial in trials if (origin := trial.status.continued_from)),
        commits=_number_of(attempt.commit for trial in trials for attempt in trial.status.attempts),
        versions=_versions(trials),
        commands=_commands(store, plan, trials),
        file=text,
        data_uri=lambda picture: "data:image/svg+xml;base64," + base64.b64encode(picture.files["svg"]).decode(),
    )


def _written(file: Path) -> tuple[Mapping[str, Any], str]:
    """The content of the sweep file and its text. Empty with a warning if it is damaged."""
    try:
        document = read_document(file)
        if isinstance(document.data, dict):
            return document.data, document.text
        problem = f"{file}: is no sweep file"
    except UserError as error:
        problem = str(error)
    warnings.warn(f"{problem}; the report is without it; run the sweep file again to write it anew", stacklevel=2)
    return {}, ""


def _number_of(words: Iterable[str]) -> dict[str, int]:
    """How often each word occurs, in order of appearance."""
    found: dict[str, int] = {}
    for word in words:
        found[word] = found.get(word, 0) + 1
    return found


def _counts(trials: list[_Trial]) -> dict[str, int]:
    """How many trials are in each state."""
    states = [trial.status.state for trial in trials]
    return {str(state): states.count(state) for state in State if state in states}


def _settings(store: SweepStore, trials: list[_Trial]) -> dict[str, str]:
    """The sweep's main options and the values that its cells have."""
    configs = [config for _, config in store.configs(trial.entry.trial_id for trial in _one_a_cell(trials))]
    told = {
        "dataset": [config["dataset"]["name"] for config in configs],
        "network": [config["network"]["name"] for config in configs],
        "budget (critic iterations)": [f"{config['budget']:,}" for config in configs],
        "batch size": [str(config["batch_size"]) for config in configs],
        "evaluation": [
            f"{config['evaluation']['name']}, {config['evaluation']['times']} a trial" for config in configs
        ],
        "seeds": [str(trial.entry.seed) for trial in trials],
    }
    searched = {axis.replace("_", " ") for trial in trials for axis in trial.entry.searched}
    told |= {name: ["searched"] for name in told if name.partition(" (")[0] in searched}
    return {name: ", ".join(_number_of(values)) for name, values in told.items()}


def _one_a_cell(trials: list[_Trial]) -> list[_Trial]:
    """The first trial of each cell; all proposals of a cell that was searched are one."""
    found: dict[str, _Trial] = {}
    for trial in trials:
        found.setdefault(_fixed(trial.entry), trial)
    return list(found.values())


def _fixed(entry: Entry) -> str:
    """The cell of the grid in words, without what a search has chosen."""
    fixed = {axis: value for axis, value in entry.axes.items() if axis not in entry.searched}
    return cell_label(entry.variant, setting_text(fixed, short_names(entry.axes))) if entry.searched else entry.label


def _grid(trials: list[_Trial], written: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row a variant: its own overrides in the sweep file, its axes with their values, the number of its cells."""
    short = short_names({axis for trial in trials for axis in trial.entry.axes})
    rows: dict[str, dict[str, Any]] = {}
    for trial in _one_a_cell(trials):
        name = trial.entry.variant
        variants = written.get("variants")
        own = (variants.get(name) if isinstance(variants, dict) else None) or {}
        row = rows.setdefault(name, {"variant": name, "base": _words(own), "axes": {}, "cells": 0})
        row["cells"] += 1
        for axis, value in trial.entry.axes.items():
            word = "searched" if axis in trial.entry.searched else short_value(value)
            row["axes"].setdefault(short[axis], {})[word] = None
    return list(rows.values())


def _words(written: Mapping[str, Any]) -> str:
    base = written.get("base") if isinstance(written, dict) else None
    return " ".join(map(str, base)) if isinstance(base, list) else ""


def _costs(trials: list[_Trial]) -> list[dict[str, Any]]:
    """One row a cell, one for the proposals of a search, and one for all.

    Each has trials, attempts, seconds of training and evaluation, hours, devices.
    """
    cells: dict[str, list[_Trial]] = {}
    for trial in trials:
        stage = {"": "", "search": " (proposals)", "confirm": " (confirmed)"}[trial.entry.stage]
        cells.setdefault(_fixed(trial.entry) + stage, []).append(trial)
    rows = []
    for label, members in [*cells.items(), ("all", trials)]:
        training = sum(trial.seconds("epoch_seconds") for trial in members)
        evaluation = sum(trial.seconds("evaluation_seconds") for trial in members)
        rows.append(
            {
                "cell": label,
                "trials": len(members),
                "attempts": sum(len(trial.status.attempts) for trial in members),
                "training": training,
                "evaluation": evaluation,
                "hours": (training + evaluation) / 3600,
                "devices": ", ".join(_number_of(device for trial in members for device in trial.devices)),
            }
        )
    return rows


def _versions(trials: list[_Trial]) -> dict[str, str]:
    """The versions of packages that the attempts ran with, by package."""
    found: dict[str, dict[str, None]] = {}
    for trial in trials:
        for attempt in trial.status.attempts:
            for name, version in attempt.versions.items():
                found.setdefault(name, {})[version] = None
    return {name: ", ".join(versions) for name, versions in found.items()}


def _commands(store: SweepStore, plan: Mapping[str, Any], trials: list[_Trial]) -> list[str]:
    """The commands that repeat the sweep and its report, from the sweep file that the report contains."""
    commits = {attempt.commit for trial in trials for attempt in trial.status.attempts}
    clean = len(commits) == 1 and not any(each == "unknown" or each.endswith("-dirty") for each in commits)
    checkout = [f"git checkout {commits.pop()}"] if clean else []
    sweep = ["orchestrator", "sweep", "sweep.yaml", *plan["overrides"], "--name", store.name]
    return [*checkout, *(shlex.join(words) for words in (sweep, ["orchestrator", "report", store.name]))]
