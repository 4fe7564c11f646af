"""The description of a sweep in MLflow, and the saved views in the menu *Views* of its page, each with an address.

MLflow keeps a saved view as a tag of the experiment. The names in it are those of its page's own state, documented
nowhere: like what stands in :mod:`orchestrator.tracking.mlflow_private`, they were seen to work with MLflow 3.17.0,
3.17.2 and 3.18.0, and a test looks for them in MLflow's pages.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from orchestrator.sweep.growing import growing_from
from orchestrator.sweep.growing_words import told
from orchestrator.tracking.mlflow_private import OWN_SECTIONS, VIEW_TAG, saved_view, was_edited
from trainers.metrics import TRAINING_SECONDS, find_metric

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

NOTE_TAG = "mlflow.note.content"
WRITTEN_TAG = "orchestrator.written"

METHODS, TRIALS = "methods", "trials"


def view_tags(plan: Mapping[str, Any]) -> dict[str, str]:
    """The views of a sweep, as tags of its experiment.

    ``methods`` shows the mean of each cell over its seeds, with a band from minimum to maximum. Its x axis is the time
    since a trial began, including evaluations. ``trials`` shows every trial, best first, over the seconds of training
    without evaluations. It also shows the trials' samples side by side, beginning with the last epoch.
    """
    metric = plan["compare"]["metric"]
    columns = [f"metrics.`{name}`" for name in (metric, TRAINING_SECONDS.name)] + [
        "tags.`state`",
        "attributes.`Models`",
    ]
    everywhere = {
        "searchFilter": "tags.`orchestrator.kind` = 'trial'",
        "selectedColumns": columns,
        "runsHiddenMode": "SHOW_ALL",
    }
    line = {
        "type": "LINE",
        "metricKey": metric,
        "lineSmoothness": 0,
        # Logarithmic, because an untrained generator's distance is far above the rest. A loss or KID may be negative.
        "scaleType": "log" if find_metric(metric).logarithmic else "linear",
        "useGlobalXaxisKey": True,
        "useGlobalLineSmoothing": True,
    }
    samples = {
        "type": "IMAGE",
        "imageKeys": ["samples"],
        "showRunParams": False,
        "step": max((trial["epochs"] for trial in plan["trials"]), default=1),
    }
    methods = everywhere | {
        # Time is the x axis, because over a metric MLflow averages points of equal rank, not of equal step.
        "groupBy": {"aggregateFunction": "average", "groupByKeys": [{"mode": "tag", "groupByData": "cell"}]},
        "globalLineChartConfig": {"xAxisKey": "time-relative", "lineSmoothness": 0},
        **_charts(metric, [line]),
    }
    trials = everywhere | {
        "orderByKey": f"metrics.`{metric}`",  # sorted by date, MLflow would hide trials in their sweep
        "orderByAsc": plan["compare"]["mode"] == "min",
        "globalLineChartConfig": {
            "xAxisKey": "metric",
            "selectedXAxisMetricKey": TRAINING_SECONDS.name,
            "lineSmoothness": 0,
        },
        **_charts(metric, [line, samples]),
    }
    return {
        f"{VIEW_TAG}{METHODS}": saved_view(f"Methods: {metric} over time", methods),
        f"{VIEW_TAG}{TRIALS}": saved_view(f"Trials: {metric} over training_seconds, samples", trials),
    }


def _charts(metric: str, charts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A first section with these charts in a row. MLflow adds charts of the other metrics in its own sections."""
    section = {"display": True, "isReordered": False}
    first = {"uuid": "first", "name": metric, "columns": len(charts), "cardHeight": 480}
    row = {"metricSectionId": "first", "deleted": False, "isGenerated": True}
    return {
        "compareRunSections": [section | first, *(section | {"uuid": name, "name": name} for name in OWN_SECTIONS)],
        "compareRunCharts": [{"uuid": f"first {number}", **row, **chart} for number, chart in enumerate(charts)],
    }


def note_of(plan: Mapping[str, Any]) -> str:
    """The description of a sweep, and what its plan may grow by."""
    growing = growing_from(plan["growing"])
    lines = [] if growing is None else [f"- {line}" for line in told(growing)]
    grows = "\n".join(["Decisions add trials to this sweep:", "", *lines]) if lines else ""
    return "\n\n".join(text for text in (plan["description"], grows) if text)


def describe(client: MlflowClient, experiment_id: str, plan: Mapping[str, Any], parent: Run | None) -> None:
    """Sets the description, also of the parent run, and the views, but not those that a user has changed."""
    known = client.get_experiment(experiment_id).tags
    written = _parsed(known.get(WRITTEN_TAG))
    wanted = note_of(plan)
    if parent is not None:
        note = parent.data.tags.get(NOTE_TAG, "")
        if note != wanted and _digest(note) == written.get(NOTE_TAG, _digest("")):
            client.set_tag(parent.info.run_id, NOTE_TAG, wanted)
    for key, value in {NOTE_TAG: wanted, **view_tags(plan)}.items():
        there = known.get(key, "")
        unknown = key not in written and key != NOTE_TAG and not was_edited(there)  # an older version's view
        if there != value and (not there or unknown or _digest(there) == written.get(key)):
            client.set_experiment_tag(experiment_id, key, value)
            there = value
        if there == value:
            written[key] = _digest(value)
    text = json.dumps(written, sort_keys=True)
    if text != known.get(WRITTEN_TAG):
        client.set_experiment_tag(experiment_id, WRITTEN_TAG, text)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _parsed(text: str | None) -> dict[str, str]:
    """The content of the tag that says what was written, as digests by tag. Empty if there is none or it is damaged."""
    with contextlib.suppress(ValueError):
        values = json.loads(text or "{}")
        if isinstance(values, dict):
            return values
    return {}
