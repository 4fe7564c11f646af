"""Times of the parts of an evaluation."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import Tensor

from bench.performance.settings import BASE, SETTINGS, Bench, RandomImages, print_table, random_data, shown
from bench.performance.steps import flop_counter
from trainers.datasets import to_input

EVALUATED = 10_000


def measure_evaluation(bench: Bench, facts: dict[str, Any], count: int) -> dict[str, Any] | str:
    """Seconds and floors of each part; a line of text if torch-fidelity is not installed."""
    try:
        from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

        from trainers.evaluation import classifier
        from trainers.evaluation.fidelity import Extractor, FeatureEvaluator
    except ImportError as error:
        return f"not measured: {error}"
    setting = SETTINGS["CIFAR-10 DCGAN"]
    bench.say(f"evaluation of {count} samples")
    training = bench.training(setting, BASE)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = classifier.Classifier(setting.shape, 10).requires_grad_(False).eval()
    extractor = Extractor(
        network=lambda images: network(to_input(images)),
        dimension=classifier.FEATURES,
        metric_names={"frechet_inception_distance": "fid", "precision": "precision"},
        info={"extractor": "random weights"},
        preprocessing="uint8 to [-1, 1]",
        batch_size=classifier.BATCH_SIZE,
        device=torch.device("cpu"),
    )
    data = random_data(RandomImages(shape=setting.shape, train_size=count, held_out_size=count))
    started = time.perf_counter()
    evaluator = FeatureEvaluator(extractor, data, count, bench.cache_dir)
    seconds = {"reference features, once a machine": time.perf_counter() - started}
    training.sample(1000)
    samples: list[Tensor] = []
    seconds["sampling"] = bench.seconds(lambda: samples.append(training.sample(count)))
    features: list[dict[str, Tensor]] = []
    seconds["features"] = bench.seconds(lambda: features.append(extractor.features(samples[0])))
    real = fid_features_to_statistics(extractor.features(data.held_out)["features"])

    def fid() -> None:
        fid_statistics_to_metric(fid_features_to_statistics(features[0]["features"]), real, verbose=False)

    seconds["FID of the features"] = bench.seconds(fid)
    bench.say("evaluation: all metrics")
    measured = bench.seconds(lambda: evaluator.measure(samples[0]))
    seconds["all metrics of the features"] = measured - seconds["features"]
    with flop_counter() as generating:
        training.sample(100)
    with flop_counter() as looking, torch.no_grad():
        network(to_input(samples[0][:100]))
    flops = {"sampling": generating.get_total_flops(), "features": looking.get_total_flops()}
    floors = {part: value * count / 100 / facts["fp32_flops"] for part, value in flops.items()}
    return {"samples": count, "seconds": seconds, "floors": floors}


def print_evaluation(result: dict[str, Any] | str) -> None:
    print("## Evaluation: CIFAR-10's DCGAN, features of a classifier\n")
    if isinstance(result, str):
        print(f"{result}\n")
        return
    print_table(
        f"of {result['samples']} samples | s | floor: s | time / floor",
        (
            [
                part,
                f"{seconds:.2f}",
                shown(result["floors"], part, digits=3),
                f"{seconds / result['floors'][part]:.1f}" if part in result["floors"] else "–",
            ]
            for part, seconds in result["seconds"].items()
        ),
    )
