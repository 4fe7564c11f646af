"""Scheduling cost per trial beyond its own work: ours against bare Ray Tune, in turns in one run.

Every contender is a separate command, timed from start to end, once with FEW and once with MANY trials:

    cost per trial = (wall-clock with MANY − wall-clock with FEW − work of the difference / workers) / (MANY − FEW)

The difference removes the start of Python, Ray and the workers. The trials of bare Ray Tune sleep WORK seconds. Ray
Tune runs with its defaults, as in its tutorials, and with reuse_actors=True, the best setting we know. Our trials are
real ones of one critic iteration, through plan, store, Ray, MLflow mirror and progress. Their own work is the time of
their attempts, from started to ended. Prints a JSON line for each command, then the table.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

WORK = 0.2
FEW = 4

BARE = """
import os, sys, tempfile, time
os.environ.update(RAY_AIR_NEW_OUTPUT="0", RAY_USAGE_STATS_ENABLED="0")
import ray
from ray import tune
trials, reuse, work = int(sys.argv[1]), sys.argv[2] == "reuse", float(sys.argv[3])
ray.init(include_dashboard=False, log_to_driver=False, logging_level="ERROR")
def trial(config):
    time.sleep(work)
    tune.report({"value": config["x"]})
with tempfile.TemporaryDirectory() as folder:
    tune.Tuner(
        tune.with_resources(trial, {"cpu": 1}),
        param_space={"x": tune.grid_search(list(range(trials)))},
        tune_config=tune.TuneConfig(reuse_actors=reuse),
        run_config=tune.RunConfig(storage_path=folder, verbose=0),
    ).fit()
"""


def bare_ray_tune(trials: int, kind: str) -> dict[str, float]:
    """Ray Tune alone: wall-clock of the command and the work of its trials, in seconds."""
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", BARE, str(trials), kind, str(WORK)], capture_output=True, check=True)
    return {"wall": time.perf_counter() - started, "work": WORK * trials}


def ours(trials: int) -> dict[str, float]:
    """``orchestrator sweep``: wall-clock of the command and the work of its trials, in seconds."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        values = list(range(1, trials + 1))
        (path / "overhead.yaml").write_text(
            f"name: overhead\nbase: [evaluation=none, budget=1, trainer=wgan_gp]\ngrid: {{penalty.weight: {values}}}\n"
        )
        command = [str(Path(sys.executable).with_name("orchestrator")), "sweep", str(path / "overhead.yaml")]
        started = time.perf_counter()
        subprocess.run([*command, "--runs-dir", str(path / "runs")], capture_output=True, check=True)
        wall = time.perf_counter() - started
        statuses = [json.loads(file.read_text()) for file in path.glob("runs/overhead/trials/*/status.json")]
    attempts = [attempt for status in statuses for attempt in status["attempts"]]
    assert len(attempts) == trials
    return {"wall": wall, "work": sum(attempt["ended"] - attempt["started"] for attempt in attempts)}


CONTENDERS: dict[str, Callable[[int], dict[str, float]]] = {
    "ours": ours,
    "bare Ray Tune, reuse_actors": functools.partial(bare_ray_tune, kind="reuse"),
    "bare Ray Tune, defaults": functools.partial(bare_ray_tune, kind="defaults"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description="Scheduling cost per trial, ours against bare Ray Tune.")
    parser.add_argument("--trials", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    workers = os.cpu_count() or 1
    costs: dict[str, list[float]] = {name: [] for name in CONTENDERS}
    for _ in range(options.rounds):
        for name, run in CONTENDERS.items():
            few, many = run(FEW), run(options.trials)
            beyond = many["wall"] - few["wall"] - (many["work"] - few["work"]) / workers
            costs[name].append(beyond / (options.trials - FEW))
            print(json.dumps({"name": name, "few": few, "many": many, "cost": costs[name][-1]}), flush=True)
    print(f"\nseconds a trial beyond its own work ({FEW} against {options.trials} trials, {workers} workers),")
    print(f"median of {options.rounds} rounds (min to max)")
    base = statistics.median(costs["bare Ray Tune, defaults"])
    for name, values in costs.items():
        middle = statistics.median(values)
        print(
            f"{name:<30} {middle:6.3f} ({min(values):.3f} to {max(values):.3f})   {middle / base:.2f} of the defaults"
        )


if __name__ == "__main__":
    main()
