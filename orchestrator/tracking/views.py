"""The saved views in the menu *Views* of a sweep's page in MLflow. Each view has its own address.

MLflow keeps a saved view as a tag of the experiment: a JSON document in a JSON string, with the keys of the page's
internal state.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

METHODS, TRIALS = "methods", "trials"
PREFIX = "mlflow.sharedViewState."
OWN_SECTIONS = ("Model metrics", "System metrics")
"""MLflow's own sections of charts. MLflow expects them to be the last ones."""


def page_address(server: str, experiment_id: str, view: str) -> str:
    """The address of a view's charts; ``server`` is ``http://HOST:PORT``."""
    query = urlencode({"workflowType": "machine_learning", "compareRunsMode": "CHART", "viewStateShareKey": view})
    return f"{server.rstrip('/')}/#/experiments/{experiment_id}/runs?{query}"


def view_tags(plan: Mapping[str, Any]) -> dict[str, str]:
    """The views of a sweep, as tags of its experiment.

    ``methods`` shows the mean of each cell over its seeds, with a band from minimum to maximum. Its x axis is the time
    since a trial began, including evaluations. ``trials`` shows every trial, best first, over the seconds of training
    without evaluations. It also shows the trials' samples side by side, beginning with the last epoch.
    """
    metric = plan["compare"]["metric"]
    columns = [f"metrics.`{name}`" for name in (metric, "training_seconds")] + ["tags.`state`", "attributes.`Models`"]
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
        "scaleType": "log" if metric.endswith(("fid", "exact_w1", "_distance", "_error")) else "linear",
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
            "selectedXAxisMetricKey": "training_seconds",
            "lineSmoothness": 0,
        },
        **_charts(metric, [line, samples]),
    }
    return {
        f"{PREFIX}{METHODS}": _saved(f"Methods: {metric} over time", methods),
        f"{PREFIX}{TRIALS}": _saved(f"Trials: {metric} over training_seconds, samples", trials),
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


def _saved(name: str, state: Mapping[str, Any]) -> str:
    return json.dumps({"name": name, "createdAt": 0, "updatedAt": 0, "state": json.dumps(state)})
