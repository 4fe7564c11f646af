"""What a new plan would change in a sweep that has one already."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.errors import UserError
from orchestrator.store.decision_log import Decision, parse_decisions
from orchestrator.store.plan_file import GrownPlan, entries_of
from orchestrator.store.sweep import SweepStore
from orchestrator.sweep.growing import Group, Growing
from orchestrator.sweep.names import cell_label
from orchestrator.sweep.setting import setting_text
from trainers.config import without_runtime_options

if TYPE_CHECKING:
    from orchestrator.sweep.plan import Plan


def changes(store: SweepStore, plan: Plan) -> list[str]:
    """Lines that say what a new plan would add to the plan of this sweep, and remove from it. Empty if nothing.

    If another sweep file made the plan that is there, they name both files. A damaged plan counts as none.
    """
    there: dict[str, Any] = {"trials": []}
    with contextlib.suppress(FileNotFoundError, UserError):
        there = store.plan()
    old = entries_of(there)
    decided = _decided(store, plan.growing)
    new = {trial.trial_id for trial in plan.trials} | {entry.trial_id for each in decided for entry in each.trials}
    gone = [entry for entry in old if entry.trial_id not in new]
    added = len(new - {entry.trial_id for entry in old})
    if not old or not (gone or added):
        return []
    kept = len(old) - len(gone)
    lines = [f"'{store.name}' has a plan already: {kept} of its {len(old)} trials stay, {added} are added"]
    if gone:
        cells = list(dict.fromkeys(entry.label for entry in gone))
        named = ", ".join(cells[:5]) + (", …" if len(cells) > 5 else "")
        lines[0] += f", {len(gone)} are removed from its plan and tables: {named}"
    file = plan.sweep_file.document.path
    before = there.get("file")
    if isinstance(before, str) and file.resolve() != Path(before).resolve():
        ways = "for a sweep of its own, change name: in the file or give --name NAME"
        lines.append(f"That plan was made from {before}, this one is made from {file}; {ways}")
    return lines


def _decided(store: SweepStore, growing: Growing | None) -> list[Decision]:
    """What was decided and is a part of a plan that may grow so."""
    with contextlib.suppress(OSError):
        return parse_decisions(store.decisions_file.read_bytes(), growing)[0]
    return []


def check_meaning(store: SweepStore, plan: Plan) -> None:
    """Raises :class:`UserError` for a new plan that changes what earlier decisions of this sweep mean.

    More proposals, another space or sampler, a larger ``most`` and more confirmations go on from what was decided.
    Another metric, other seeds, another configuration of a searched cell and other cells in a race do not.
    """
    try:
        there, grown = store.plan(), store.grown()
    except (FileNotFoundError, UserError):
        return  # nothing is there, or a damaged plan, which counts as none
    if grown is None or not grown.decisions or plan.growing is None:
        return
    if what := _contradiction(there, grown, plan, plan.growing):
        raise UserError(
            f"{plan.sweep_file.document.path}: the sweep '{store.name}' has made {len(grown.decisions)} decisions, and "
            f"{what} would change what they mean; undo that, or give the sweep another name with --name"
        )


def _contradiction(there: Mapping[str, Any], grown: GrownPlan, plan: Plan, growing: Growing) -> str | None:
    old, kinds = grown.growing, {each.kind for each in grown.decisions}
    compare = there["compare"]
    if (compare["metric"], compare["mode"]) != (plan.compare.metric, plan.compare.mode):
        return f"another metric than {compare['metric']} ({compare['mode']})"
    if "search" in kinds and growing.groups and old.seeds != growing.seeds:
        return f"other seeds than {list(old.seeds)}"
    searched = [each.cell() for each in grown.decisions if each.kind == "search"]
    before = {_key(group): group for group in old.groups if (group.variant, group.axes) in searched}
    for group in growing.groups:
        earlier = before.get(_key(group))
        if earlier is not None and _science(earlier) != _science(group):
            label = cell_label(group.variant, setting_text(group.axes, growing.short))
            return f"another configuration of '{label}'"
    if "race" in kinds and old.race is not None and growing.race is not None:
        if old.race.first != growing.race.first:
            return f"another number of first seeds than {old.race.first}"
        raced = {entry.trial_id for entry in entries_of(there) if not entry.stage and entry.seed < old.race.first}
        if raced != {trial.trial_id for trial in plan.trials}:
            return "other cells in its race"
    return None


def _key(group: Group) -> str:
    return repr((group.variant, sorted(group.axes.items(), key=lambda item: item[0])))


def _science(group: Group) -> Any:
    """A searched cell's configuration, without what the search chooses and without how a trial runs."""
    return without_runtime_options({**group.config, "seed": 0})
