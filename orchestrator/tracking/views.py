"""The views that MLflow's page of a sweep offers in its menu *Views*, each with an address of its own.

MLflow keeps a saved view as a tag of the experiment: JSON in JSON, with the names that its page's own state has.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

from trainers.metrics import TRAINING_SECONDS, find_metric

METHODS, TRIALS = "methods", "trials"
PREFIX = "mlflow.sharedViewState."
OWN_SECTIONS = ("Model metrics", "System metrics")
"""MLflow's own sections of charts, which it wants to be the last ones."""


def page_address(server: str, experiment_id: str, view: str) -> str:
    """Where the charts of a view are; ``server`` is ``http://HOST:PORT``."""
    query = urlencode({"workflowType": "machine_learning", "compareRunsMode": "CHART", "viewStateShareKey": view})
    return f"{server.rstrip('/')}/#/experiments/{experiment_id}/runs?{query}"


def view_tags(plan: Mapping[str, Any]) -> dict[str, str]:
    """The views of a sweep, as tags of its experiment.

    ``methods``: cells, means over their seeds with a band from the least to the greatest, over the time since a trial
    began, evaluations included. ``trials``: each trial, the best one first, over the seconds of training alone, and
    samples of all of them side by side, the last ones first.
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
        "scaleType": "log" if find_metric(metric).logarithmic else "linear",
        "useGlobalXaxisKey": True,
        "useGlobalLineSmoothing": True,
    }
    samples = {
        "type": "IMAGE",
        "imageKeys": ["samples"],
        "showRunParams": False,
        "step": max(trial["epochs"] for trial in plan["trials"]),
    }
    methods = everywhere | {
        # Over a metric MLflow's means of groups are none: it pairs their points by rank and not by step.
        "groupBy": {"aggregateFunction": "average", "groupByKeys": [{"mode": "tag", "groupByData": "cell"}]},
        "globalLineChartConfig": {"xAxisKey": "time-relative", "lineSmoothness": 0},
        **_charts(metric, [line]),
    }
    trials = everywhere | {
        "orderByKey": f"metrics.`{metric}`",  # by anything but the date MLflow does not hide trials in their sweep
        "orderByAsc": plan["compare"]["mode"] == "min",
        "globalLineChartConfig": {
            "xAxisKey": "metric",
            "selectedXAxisMetricKey": TRAINING_SECONDS.name,
            "lineSmoothness": 0,
        },
        **_charts(metric, [line, samples]),
    }
    return {
        f"{PREFIX}{METHODS}": _saved(f"Methods: {metric} over time", methods),
        f"{PREFIX}{TRIALS}": _saved(f"Trials: {metric} over training_seconds, samples", trials),
    }


def _charts(metric: str, charts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A first section with these charts in a row; MLflow adds those of the other metrics in its own."""
    section = {"display": True, "isReordered": False}
    first = {"uuid": "first", "name": metric, "columns": len(charts), "cardHeight": 480}
    row = {"metricSectionId": "first", "deleted": False, "isGenerated": True}
    return {
        "compareRunSections": [section | first, *(section | {"uuid": name, "name": name} for name in OWN_SECTIONS)],
        "compareRunCharts": [{"uuid": f"first {number}", **row, **chart} for number, chart in enumerate(charts)],
    }


def _saved(name: str, state: Mapping[str, Any]) -> str:
    return json.dumps({"name": name, "createdAt": 0, "updatedAt": 0, "state": json.dumps(state)})
