"""The command ``python -m bench.performance``."""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

import torch

from bench.performance.epochs import measure_epochs, print_epochs
from bench.performance.evaluation import EVALUATED, measure_evaluation, print_evaluation
from bench.performance.machine import machine, print_machine
from bench.performance.memory import measure_memory, print_memory
from bench.performance.settings import SETTINGS, Bench
from bench.performance.steps import measure_steps, print_steps
from trainers.devices import use_full_float32


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Compares training steps with WGAN-GP, with the textbook and with the machine's limits."
    )
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--networks", nargs="+", choices=list(SETTINGS), default=list(SETTINGS))
    parser.add_argument("--quick", action="store_true", help="only a few turns, to see that everything runs")
    parser.add_argument("--output", type=Path, help="write the raw figures as JSON")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory(prefix="performance-") as cache:
        run(options, Bench(options.device, options.threads, Path(cache), quick=options.quick))


def run(options: argparse.Namespace, bench: Bench) -> None:
    """Measures all sections and prints each when it is done."""
    settings = {name: SETTINGS[name] for name in options.networks}
    use_full_float32()
    facts = machine(bench)
    print_machine(facts)
    steps = [row for name, each in settings.items() for row in measure_steps(bench, name, each, facts)]
    print_steps(steps)
    epochs = [row for name, each in settings.items() for row in measure_epochs(bench, name, each, facts)]
    print_epochs(epochs, steps, facts)
    memory = measure_memory(bench)
    print_memory(memory)
    evaluation = measure_evaluation(bench, facts, 1000 if options.quick else EVALUATED)
    print_evaluation(evaluation)
    facts["seconds"] = time.perf_counter() - bench.started
    print(f"Took {facts['seconds']:.0f} s; load {os.getloadavg()[0]:.1f} at the end.")
    if options.output:
        raw = {
            "machine": facts,
            "settings": {name: f"{each}, {bench.turns(name)}" for name, each in settings.items()},
            "steps": steps,
            "epochs": epochs,
            "memory": memory,
            "evaluation": evaluation,
        }
        options.output.write_text(json.dumps(raw, indent=1) + "\n")


if __name__ == "__main__":
    main()
