"""What may make a plan grow, in words."""

from __future__ import annotations

from orchestrator.sweep.growing import Group, Growing


def told(growing: Growing) -> list[str]:
    """A sentence for each search, race and confirmation. Cells that are searched alike share one."""
    sentences = []
    alike: dict[str, list[Group]] = {}
    for group in growing.groups:
        search = group.search
        what = f"{_number(search.trials, 'proposal')} of {', '.join(search.space)} by {search.sampler}"
        alike.setdefault(what, []).append(group)
    for what, groups in alike.items():
        seeds = _number(len(growing.seeds), "seed")
        cell = groups[0].label(growing.short) if len(groups) == 1 else f"each of {len(groups)} cells"
        sentences.append(f"search: {what} for {cell}, each trained with {seeds}")
    if (race := growing.race) is not None:
        bound = "" if race.trials is None else f", at most {race.trials:,} trials in all"
        sentences.append(
            f"race: {race.first} seeds for every cell, up to {race.most} for those that may be best{bound}"
        )
    if (confirm := growing.confirm) is not None:
        best = "the best cell" if confirm.best == 1 else f"the {confirm.best} best cells"
        of = "each search" if growing.groups else "each variant"
        sentences.append(f"confirmation: {best} of {of} once more, with {_number(confirm.seeds, 'fresh seed')}")
    return sentences


def _number(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"
