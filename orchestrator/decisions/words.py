"""Decisions in words."""

from __future__ import annotations

from orchestrator.store.decision_log import Decision
from orchestrator.sweep.names import cell_label


def told(decision: Decision) -> str | None:
    """What a decision says to people, in one line. None for a proposal, which its trials show."""
    about = decision.about
    if decision.kind == "race":
        cells = decision.rests_on["cells"]
        if about.get("goes_on"):
            return f"race: goes on to {about['seeds']} seeds, because the sweep file allows more by now"
        left = sum(each["out"] is None for each in cells)
        look = f"race, look {about['look'] + 1} at {about['had']} seeds a cell: {left} of {len(cells)} cells "
        return look + (f"are left; it ends: {about['ended']}" if about["ended"] else f"go on to {about['seeds']} seeds")
    label = cell_label(about["variant"], " ".join(f"{name}={value}" for name, value in about["axes"].items()))
    if decision.kind == "search":
        number = about["proposal"]
        if "exhausted" in about:
            return f"search of {label}: ends after {number} proposals, because no setting is left to try"
        return f"search of {label}: proposal {number} is left out: {about['problem']}" if "problem" in about else None
    if "problem" in about:
        return f"confirmation of {label}: nothing to confirm, because {about['problem']}"
    cells = list(dict.fromkeys(entry.label for entry in decision.trials))
    return f"confirmation with {about['seeds']} fresh seeds: {', '.join(cells)}" if cells else None
