"""Scheduling cost a trial beyond its own work: ours beside bare Ray Tune, in turns in one run.

Both run the same trials on the same machine with the same number of workers: a trial imports torch and waits
WORK seconds. Bare Ray Tune has its defaults, as its tutorials show it, and then reuse_actors=True, the best we know.
Ours runs real trials of one critic iteration without evaluation through plan, store, Ray, MLflow mirror and progress.

    cost a trial = (wall-clock of the run − Ray's start − own work / workers) / trials

Own work of our trials is what their attempts say (started to ended). Prints a JSON line for each run, then the table.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

WORK = 0.2


def bare_ray_tune(trials: int, reuse_actors: bool) -> dict[str, float]:
    """Wall-clock of Tune alone, Ray already started."""
    code = f"""
import os, time, json, tempfile
os.environ.update(RAY_AIR_NEW_OUTPUT="0", TUNE_DISABLE_AUTO_CALLBACK_LOGGERS="0", RAY_USAGE_STATS_ENABLED="0")
import ray
from ray import tune
ray.init(include_dashboard=False, log_to_driver=False, logging_level="ERROR")
def trial(config):
    import torch
    time.sleep({WORK})
    tune.report({{"value": config["x"]}})
with tempfile.TemporaryDirectory() as folder:
    started = time.perf_counter()
    tuner = tune.Tuner(
        tune.with_resources(trial, {{"cpu": 1}}),
        param_space={{"x": tune.grid_search(list(range({trials})))}},
        tune_config=tune.TuneConfig(reuse_actors={reuse_actors}),
        run_config=tune.RunConfig(storage_path=folder, verbose=0),
    )
    tuner.fit()
    wall = time.perf_counter() - started
print(json.dumps({{"wall": wall, "workers": ray.cluster_resources()["CPU"]}}))
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    result = json.loads(out.splitlines()[-1])
    result["work"] = WORK * trials
    return result


def ours(trials: int) -> dict[str, float]:
    """Wall-clock of ``orchestrator sweep`` from the first trial's start to the command's end."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        values = list(range(1, trials + 1))
        (path / "overhead.yaml").write_text(
            f"name: overhead\nbase: [evaluation=none, budget=1, trainer=wgan_gp]\ngrid: {{penalty.weight: {values}}}\n"
        )
        command = [str(Path(sys.executable).with_name("orchestrator")), "sweep", str(path / "overhead.yaml")]
        started = time.time()
        subprocess.run([*command, "--runs-dir", str(path / "runs")], capture_output=True, check=True)
        ended = time.time()
        statuses = [json.loads(file.read_text()) for file in path.glob("runs/overhead/trials/*/status.json")]
    attempts = [attempt for status in statuses for attempt in status["attempts"]]
    assert len(attempts) == trials
    first = min(attempt["started"] for attempt in attempts)
    return {
        "wall": ended - first,
        "start": first - started,
        "work": sum(attempt["ended"] - attempt["started"] for attempt in attempts),
        "workers": float(os.cpu_count() or 1),
    }


def cost(run: dict[str, float], trials: int) -> float:
    """Seconds a trial beyond its own work."""
    return (run["wall"] - run["work"] / run["workers"]) / trials


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    costs: dict[str, list[float]] = {"ours": [], "bare Ray Tune, reuse_actors": [], "bare Ray Tune, defaults": []}
    for _ in range(options.rounds):
        runs = {
            "ours": ours(options.trials),
            "bare Ray Tune, reuse_actors": bare_ray_tune(options.trials, True),
            "bare Ray Tune, defaults": bare_ray_tune(options.trials, False),
        }
        for name, run in runs.items():
            costs[name].append(cost(run, options.trials))
            print(json.dumps({"name": name, "trials": options.trials, **run, "cost": costs[name][-1]}), flush=True)
    print(
        f"\nseconds a trial beyond its own work, {options.trials} trials, median of {options.rounds} rounds (min–max)"
    )
    base = statistics.median(costs["bare Ray Tune, defaults"])
    for name, values in costs.items():
        middle = statistics.median(values)
        print(f"{name:<30} {middle:6.3f} ({min(values):.3f}–{max(values):.3f})   {middle / base:.2f} of the defaults")


if __name__ == "__main__":
    main()
