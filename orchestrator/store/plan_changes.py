"""What a new plan would change in a sweep that has one already."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.errors import UserError
from orchestrator.store.decision_log import Decision, cell_key, check_undamaged, parse_decisions
from orchestrator.store.entry import Entry
from orchestrator.store.outlook import Outlook
from orchestrator.store.plan_file import entries_of
from orchestrator.store.sweep import SweepStore
from orchestrator.sweep.growing import Group, Growing, growing_from
from orchestrator.sweep.names import cell_label
from orchestrator.sweep.setting import set_option, setting_text
from trainers.config import TrialConfig
from trainers.parts import ConfigError

if TYPE_CHECKING:
    from orchestrator.sweep.plan import Plan


def changes(store: SweepStore, plan: Plan) -> list[str]:
    """Lines that say what a new plan would add to the plan of this sweep, and remove from it. Empty if nothing.

    If another sweep file made the plan that is there, they name both files. A damaged plan counts as none.
    """
    there = _plan_of(store)
    old = entries_of(there)
    decided = decisions_for(store, plan)[0]
    new = {trial.trial_id for trial in plan.trials} | {entry.trial_id for each in decided for entry in each.trials}
    gone = [entry for entry in old if entry.trial_id not in new]
    added = len(new - {entry.trial_id for entry in old})
    grows = _growth(growing_from(there.get("growing")), plan.growing)
    if not old or not (gone or added or grows):
        return []
    kept = len(old) - len(gone)
    lines = [f"'{store.name}' has a plan already: {kept} of its {len(old)} trials stay, {added} are added"]
    if grows and (to_come := outlook_of(store, plan).told):
        lines[0] += f" at once and {to_come} by decisions"
    if gone:
        cells = list(dict.fromkeys(entry.label for entry in gone))
        named = ", ".join(cells[:5]) + (", …" if len(cells) > 5 else "")
        lines[0] += f", {len(gone)} are removed from its plan and tables: {named}"
    if grows:
        lines.append(f"What may be decided changes: {'; '.join(grows)}. What was decided stays")
    file = plan.sweep_file.document.path
    before = there.get("file")
    if isinstance(before, str) and file.resolve() != Path(before).resolve():
        ways = "for a sweep of its own, change name: in the file or give --name NAME"
        lines.append(f"That plan was made from {before}, this one is made from {file}; {ways}")
    return lines


def _plan_of(store: SweepStore) -> Mapping[str, Any]:
    """The plan of a sweep, or an empty one if it has none or a damaged one."""
    with contextlib.suppress(FileNotFoundError, UserError):
        return store.plan()
    return {"trials": []}


def decisions_for(store: SweepStore, plan: Plan) -> tuple[list[Decision], list[str]]:
    """What was decided in this sweep and is a part of this plan, and what is damaged of it."""
    with contextlib.suppress(OSError):
        return parse_decisions(store.decisions_file.read_bytes(), plan.growing, plan.trials)
    return [], []


def outlook_of(store: SweepStore, plan: Plan) -> Outlook:
    """What is decided of a new plan, and what may still come."""
    before = growing_from(_plan_of(store).get("growing"))
    decided_with = None if before is None else before.race
    return Outlook(plan.growing, plan.trials, decisions_for(store, plan)[0], decided_with)


def _growth(old: Growing | None, new: Growing | None) -> list[str]:
    """What differs in how two plans may grow, in words."""
    told: dict[str, list[str]] = {}
    was = {} if old is None else {cell_key(each.variant, each.axes): each for each in old.groups}
    for group in () if new is None else new.groups:
        if what := _search_change(was.pop(cell_key(group.variant, group.axes), None), group):
            told.setdefault(what, []).append(group.label(new.short if new else {}))
    for group in was.values():
        told.setdefault("no search any more", []).append(group.label(old.short if old else {}))
    lines = [f"{_few(labels)}: {what}" for what, labels in told.items()]
    for name in ("race", "confirm"):
        before, now = getattr(old, name, None), getattr(new, name, None)
        if before != now:
            lines.append(f"{name}: {_settings(now)} instead of {_settings(before)}")
    return lines


def _search_change(was: Group | None, now: Group) -> str:
    """What differs in the search of a cell. Empty if nothing."""
    if was is None:
        return f"a search of {now.search.trials} proposals"
    before, search = was.search, now.search
    parts = []
    if before.trials != search.trials:
        parts.append(f"{search.trials} proposals instead of {before.trials}")
    if before.parallel != search.parallel:
        parts.append(f"{search.parallel} in parallel instead of {before.parallel}")
    if (before.sampler, before.seed) != (search.sampler, search.seed):
        parts.append(f"the sampler {search.sampler} with seed {search.seed}")
    if dict(before.space) != dict(search.space):
        parts.append("another space")
    return ", ".join(parts)


def _few(labels: Sequence[str]) -> str:
    return ", ".join(labels[:3]) + (f" and {len(labels) - 3} others" if len(labels) > 3 else "")


def _settings(value: Any) -> str:
    if value is None:
        return "none"
    return "{" + ", ".join(f"{key}: {each}" for key, each in vars(value).items() if each is not None) + "}"


def check_meaning(store: SweepStore, plan: Plan) -> None:
    """Raises :class:`UserError` for a new plan that changes what earlier decisions of this sweep mean.

    More proposals, another space or sampler, a larger ``most`` and more confirmations go on from what was decided.
    Another metric, other seeds, another configuration of a decided cell and other cells in a race do not. Raises it for
    damaged decisions too, because nobody knows what they mean.
    """
    decisions, problems = decisions_for(store, plan)
    if plan.growing is None:
        return
    check_undamaged(store.decisions_file, problems)
    if decisions and (what := _contradiction(_plan_of(store), decisions, plan, plan.growing)):
        raise UserError(
            f"{plan.sweep_file.document.path}: the sweep '{store.name}' has made {len(decisions)} decisions, and "
            f"{what} would change what they mean; undo that, or give the sweep another name with --name"
        )


def _contradiction(there: Mapping[str, Any], decisions: Sequence[Decision], plan: Plan, growing: Growing) -> str | None:
    by = {"metric": plan.compare.metric, "mode": plan.compare.mode}
    if other := next((each.about["compare"] for each in decisions if each.about.get("compare", by) != by), None):
        return f"another metric than {other['metric']} ({other['mode']})"
    looks = [each for each in decisions if each.kind == "race"]
    if looks and looks[0].about["had"] != len(growing.seeds):
        return f"another number of first seeds than {looks[0].about['had']}"
    configs = {cell_key(each.variant, each.axes): each.config.to_dict() for each in plan.trials}
    if looks and {cell_key(each["variant"], each["axes"]) for each in looks[0].rests_on["cells"]} != configs.keys():
        return "other cells in its race"
    groups = {cell_key(group.variant, group.axes): group.config for group in growing.groups}
    known = set()
    for decision in decisions:
        seeds = [entry.seed for entry in decision.trials]
        if decision.kind == "search" and seeds and seeds != list(growing.seeds):
            return f"other seeds than {seeds}"
        for entry in decision.trials:
            grid = {name: value for name, value in entry.axes.items() if name not in entry.searched}
            key = cell_key(entry.variant, grid)
            if key in known:  # one trial tells of all with the same configuration
                continue
            known.add(key)
            config = groups.get(key) if entry.searched else configs.get(key)
            label = cell_label(entry.variant, setting_text(grid, growing.short))
            if config is None:
                return f"leaving out '{label}'"
            if not _is_trial(entry, config):
                return f"another configuration of '{label}'"
    return _other_cells(there, decisions, plan, growing)


def _is_trial(entry: Entry, config: Mapping[str, Any]) -> bool:
    """Whether a cell's configuration gives this trial."""
    made = dict(config)
    try:
        for option in entry.searched:
            made = set_option(made, option, entry.axes[option])
        return TrialConfig.from_dict({**made, "seed": entry.seed}).identity == entry.trial_id
    except (ConfigError, KeyError, TypeError):  # an option that the configuration does not have any more
        return False


def _other_cells(there: Mapping[str, Any], decisions: Sequence[Decision], plan: Plan, growing: Growing) -> str | None:
    """What has changed of the cells of which a race or a confirmation chose the best."""
    old = growing_from(there.get("growing"))
    chosen = {each.about["variant"] for each in decisions if each.kind == "confirm" and not each.about["axes"]}
    raced = any(each.kind == "race" for each in decisions)
    now = {trial.trial_id for trial in plan.trials}
    cells = {cell_key(trial.variant, trial.axes) for trial in plan.trials}
    if old is None:
        return None
    for entry in entries_of(there):
        first = not entry.stage and entry.seed in old.seeds and entry.seed in growing.seeds
        if first and (raced or entry.variant in chosen) and entry.trial_id not in now:
            is_there = cell_key(entry.variant, entry.axes) in cells
            return f"{'another configuration of' if is_there else 'leaving out'} '{entry.label}'"
    return None
