"""The state of a sweep, read from its directory, for people and as JSON."""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from typing import Any

from rich.console import JustifyMethod
from rich.table import Table
from rich.text import Text

from orchestrator.files import disk_usage
from orchestrator.printing import printable
from orchestrator.remote.lease import holder
from orchestrator.screen.console import wide_console
from orchestrator.screen.progress import STYLES, Watch
from orchestrator.screen.units import duration, in_bytes
from orchestrator.store.lock import is_alive, read_driver
from orchestrator.store.outlook import Outlook
from orchestrator.store.states import State
from orchestrator.store.sweep import SweepStore

LEAST_CELL_WIDTH = 10
"""The columns of the terminal that the cells' names have at least."""


def sweep_status(store: SweepStore) -> dict[str, Any]:
    """What ``orchestrator status --json`` prints about a sweep.

    ``driver`` is None, or the driver's host and process and whether it is alive. ``seconds_left`` assumes that as many
    trials run at once as now, at least one; it is None before the first epoch. ``disk_bytes`` is the size of the
    sweep's directory. ``removed`` counts the trials that are no longer in the sweep file.

    For each trial, ``epoch`` is the last stored epoch and ``epoch_at`` its time (seconds since 1970).
    ``peak_memory_mb`` is the GPU's, or that of the process on a CPU. ``error`` says how the last attempt failed, or why
    the trial's files cannot be read. ``stage`` is ``search``, ``confirm`` or empty, and ``proposal`` the number of the
    search's proposal, from 0. ``growing`` is None, or :func:`_growing`. ``damaged`` has a sentence for each part of the
    sweep that cannot be read. Each is also a warning.
    """
    watch = Watch(store)
    watch.refresh()
    lost = [seen for seen in watch.trials if seen.status.is_unreadable and not seen.problem]
    damaged = [
        *store.plan_problems(),
        *watch.problems(),
        *(f"{seen.label}: {store.trial(seen.entry.trial_id).path}: {seen.status.error}" for seen in lost),
    ]
    for problem in damaged:
        warnings.warn(problem, stacklevel=2)
    running = sum(seen.status.state is State.RUNNING for seen in watch.trials)
    return {
        "sweep": store.name,
        "driver": _driver(store),
        "counts": {str(state): number for state, number in watch.counts().items()},
        "seconds_left": watch.seconds_left(max(running, 1)),
        "disk_bytes": disk_usage([store.path]),
        "removed": len(store.removed()),
        "damaged": damaged,
        "metric": watch.metric,
        "growing": _growing(watch.outlook) if watch.grows else None,
        "trials": [
            {
                "trial_id": seen.entry.trial_id,
                "cell": seen.entry.label,
                "seed": seen.entry.seed,
                "stage": seen.entry.stage,
                "proposal": seen.entry.proposal,
                "state": str(seen.status.state),
                "attempts": len(seen.status.attempts),
                "epoch": seen.epoch,
                "epochs": seen.entry.epochs,
                "epoch_at": seen.epoch_at,
                watch.metric: seen.metric,
                "peak_memory_mb": seen.memory,
                "error": seen.error,
            }
            for seen in watch.trials
        ],
    }


def _growing(outlook: Outlook) -> dict[str, Any]:
    """What decisions have added to a plan and may still add: the fewest and the most trials ``to_come``, and why.

    A search has made ``decided`` of its ``proposals``. A race has had ``looks`` looks; the cells that are ``left`` of
    all ``cells`` have ``seeds`` seeds each, at most ``most``. A confirmation has ``confirmed`` trials of ``cells``, and
    ``waits_for`` what has to end before it is decided.
    """
    race = outlook.race
    return {
        "to_come": [outlook.least, outlook.most],
        "searches": [
            {
                "cell": each.label,
                "decided": each.decided,
                "proposals": each.proposals,
                "seeds": each.seeds,
                "exhausted": each.exhausted,
            }
            for each in outlook.searches.values()
        ],
        "race": race
        and {
            "looks": race.looks,
            "cells": len(race.cells),
            "left": len(race.racing),
            "seeds": race.seeds,
            "most": race.race.most,
            "ended": race.ended,
        },
        "confirmations": [
            {
                "of": each.label,
                "seeds": each.confirm.seeds,
                "best": each.confirm.best,
                "cells": each.cells,
                "confirmed": each.confirmed,
                "waits_for": each.waits_for if each.open else None,
                "problem": each.problem,
            }
            for each in outlook.confirmations.values()
        ],
    }


def _growth_lines(growing: dict[str, Any]) -> list[str]:
    """How far searches, the race and confirmations are, one line each."""
    lines = []
    for each in growing["searches"]:
        ended = ", no setting is left to try" if each["exhausted"] else ""
        lines.append(f"search of {each['cell']}: {each['decided']} of {each['proposals']} proposals decided{ended}")
    if race := growing["race"]:
        line = f"race: {race['left']} of {race['cells']} cells are left, with {race['seeds']} seeds each"
        end = f"it has ended: {race['ended']}" if race["ended"] else f"it goes on to at most {race['most']} seeds"
        lines.append(f"{line}, after {race['looks']} look{'' if race['looks'] == 1 else 's'}; {end}")
    for each in growing["confirmations"]:
        line = f"confirmation of {each['of']}: "
        told = [f"{each['confirmed']} trials of {', '.join(each['cells'])}"] if each["cells"] else []
        told += [f"waits for {each['waits_for']}"] if each["waits_for"] else []
        lines.append(line + ("; ".join(told) or f"nothing to confirm, because {each['problem']}"))
    return lines


def _driver(store: SweepStore) -> dict[str, Any] | None:
    """The driver on this machine, or the holder of the lease of a sweep in an object store."""
    if (driver := read_driver(store)) is not None:
        return {"host": driver.host, "pid": driver.pid, "alive": is_alive(store, driver)}
    held = None if store.replica is None else holder(store.replica, store.name)
    return held and {"host": held["host"], "pid": held["pid"], "alive": True}


def show_status(sweeps: Sequence[dict[str, Any]], *, with_trials: bool) -> None:
    """Prints one line per sweep and, with ``with_trials``, a table of its trials and their errors."""
    console = wide_console()
    for known in sweeps:
        console.print(Text(printable(_headline(known))), soft_wrap=True)
        if with_trials:
            for line in _growth_lines(known["growing"]) if known["growing"] else []:
                console.print(Text(printable(line)), soft_wrap=True)
            console.print(_trials(known, console.width))
            for trial in known["trials"]:
                if trial["error"]:
                    text = f"{trial['state']} {trial['trial_id']}: {trial['error']}"
                    console.print(Text(printable(text), style=STYLES[State(trial["state"])]), soft_wrap=True)


def _headline(known: dict[str, Any]) -> str:
    counts = [f"{number} {state}" for state, number in known["counts"].items()]
    if growing := known["growing"]:
        least, most = growing["to_come"]
        counts += [f"{least if least == most else f'{least} to {most}'} to come"] if most else []
    parts = [", ".join(counts) or "no trials yet"]
    if known["seconds_left"]:
        parts.append(f"about {duration(known['seconds_left'])} left")
    parts.append(in_bytes(known["disk_bytes"]))
    if peaks := [trial["peak_memory_mb"] for trial in known["trials"] if trial["peak_memory_mb"] is not None]:
        parts.append(f"peak memory of a trial {in_bytes(1e6 * max(peaks))}")
    if known["removed"]:
        parts.append(f"{known['removed']} trials no longer in the sweep file")
    if driver := known["driver"]:
        what = "driven by" if driver["alive"] else "left by a driver that died,"
        parts.append(f"{what} process {driver['pid']} on {driver['host']}")
    return f"{known['sweep']}: {' · '.join(parts)}"


def _trials(known: dict[str, Any], width: int) -> Table:
    """The table of a sweep's trials. Columns that do not fit into ``width`` are left out, and the caption names them.

    A cell's name is folded before a column is left out. The cell and the state always stay.
    """
    table = Table(box=None, pad_edge=False, header_style="bold", caption_justify="left")
    metric = printable(known["metric"])
    names = ["trial", "cell", "state", "epoch", "attempts", metric, "last epoch"]
    if any(trial["stage"] for trial in known["trials"]):
        names.insert(2, "stage")
    rows = [_row(trial, metric, trial[known["metric"]]) for trial in known["trials"]]
    widths = {name: max([len(name), *(len(row[name]) for row in rows)]) for name in names}
    widths["cell"] = min(widths["cell"], LEAST_CELL_WIDTH)
    shown = list(names)
    for name in ("attempts", "last epoch", "stage", metric, "epoch", "trial"):
        if name in shown and sum(widths[each] for each in shown) + 2 * (len(shown) - 1) > width:
            shown.remove(name)
    if len(shown) < len(names):
        table.caption = Text(f"too narrow for: {', '.join(name for name in names if name not in shown)}")
    for name in shown:
        justify: JustifyMethod = "left" if name in ("trial", "cell", "stage") else "right"
        table.add_column(name, justify=justify, no_wrap=name != "cell", overflow="fold")
    for row in rows:
        styles = {"state": STYLES[State(row["state"])]}
        table.add_row(*(Text(row[name], style=styles.get(name, "")) for name in shown))
    return table


def _row(trial: dict[str, Any], metric: str, value: float | None) -> dict[str, str]:
    at = trial["epoch_at"]
    number = "" if trial["proposal"] is None else f" {trial['proposal']}"
    return {
        "trial": trial["trial_id"],
        "cell": printable(f"{trial['cell']} seed={trial['seed']}"),
        "stage": f"{trial['stage']}{number}",
        "state": trial["state"],
        "epoch": f"{trial['epoch']}/{trial['epochs']}",
        "attempts": str(trial["attempts"]),
        metric: "" if value is None else f"{value:.4g}",
        "last epoch": "" if at is None else f"{duration(max(0.0, time.time() - at))} ago",
    }
