"""Times of epochs: the textbook's, ours, and ours with other options."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from torch import Tensor

from bench import textbook
from bench.performance.settings import (
    BASE,
    BATCH,
    Bench,
    RandomImages,
    Setting,
    print_table,
    random_data,
    shown,
    verdict,
)

TEXTBOOK: dict[str, textbook.Step] = {
    BASE: textbook.wgan_gp,
    "WWGAN": textbook.wwgan,
    "(2,1)": textbook.qp_wgan(2.0, 1.0),
}
TEXTBOOK_TARGETS = {"cpu": {BASE: 1.5, "(2,1)": 2.0}, "cuda": {BASE: 4.0, "(2,1)": 4.0}}
BF16_TARGET = 1.5


def measure_epochs(bench: Bench, name: str, setting: Setting, facts: dict[str, Any]) -> list[dict[str, Any]]:
    """Measures each method that the textbook has. Returns a row per method."""
    rows: list[dict[str, Any]] = []
    turns = bench.turns(name)
    variants: dict[str, dict[str, Any]] = {"ours": {}, "compiled": {"compile": True}, "bf16": {"precision": "bf16"}}
    if not bf16_is_worth_it(facts):
        del variants["bf16"]
    for method, step in TEXTBOOK.items():
        ours: dict[str, Callable[[], object]] = {}
        first: dict[str, float] = {}
        failed: dict[str, str] = {}
        for variant, options in variants.items():
            bench.say(f"{name}: {method}, {variant}, first turn")
            started = time.perf_counter()
            try:
                training = bench.training(setting, method, images=turns.epoch_iterations * BATCH, **options)
                training.run_epoch()
            except Exception as error:  # this machine lacks the option; the other rows are still measured
                failed[variant] = f"{type(error).__name__}: {str(error).strip()[:200]}"
            else:
                ours[variant] = training.run_epoch
                first[variant] = time.perf_counter() - started
        book = TextbookEpochs(bench, setting, step, turns.epoch_iterations)
        book.run()
        times: dict[str, list[float]] = {variant: [] for variant in (*ours, "textbook", "loader")}
        for _ in bench.rounds(f"{name}: {method}, epochs", turns.epoch_rounds):
            loader, loop = book.run()
            times["loader"].append(loader)
            times["textbook"].append(loop)
            for variant, act in ours.items():
                times[variant].append(bench.seconds(act) / turns.epoch_iterations)
        row: dict[str, Any] = {"network": name, "method": method, "times": times, "first": first, "failed": failed}
        if "compiled" in times:
            row["compile_seconds"] = first["compiled"] - first["ours"]
        rows.append(row | epoch_ratios(times, setting.epoch // BATCH))
    return rows


def bf16_is_worth_it(facts: dict[str, Any]) -> bool:
    """Whether matrix products in bf16 are as fast as in fp32. Without AMX or AVX-512 they can be fifty times slower."""
    return facts["bf16_flops"] >= facts["fp32_flops"]


class TextbookEpochs:
    """The textbook's training. Each run takes the first iterations of an epoch."""

    def __init__(self, bench: Bench, setting: Setting, step: textbook.Step, iterations: int) -> None:
        self._bench = bench
        self._step = step
        self._turn = iterations
        self._players = textbook.make_players(setting.network, setting.shape, bench.device)
        self._images = random_data(RandomImages(shape=setting.shape)).train

    def run(self) -> tuple[float, float]:
        """Seconds until the first batch, and seconds per iteration after it."""
        started = time.perf_counter()
        loader = textbook.batches(self._images, BATCH, self._bench.device)
        batches = itertools.chain([next(loader)], loader)
        until_first = time.perf_counter() - started
        loop = self._bench.seconds(lambda: self._iterate(batches))
        return until_first, loop / self._turn

    def _iterate(self, batches: Iterator[Tensor]) -> None:
        for _ in range(self._turn):
            self._step(self._players, next(batches))


def epoch_ratios(times: dict[str, list[float]], length: int) -> dict[str, float]:
    """Medians over the rounds of textbook / ours, for whole epochs and for the loop, and of ours / compiled or bf16."""
    book = [loader / length + loop for loader, loop in zip(times["loader"], times["textbook"], strict=True)]
    ratios = {"textbook/ours": median_ratio(book, times["ours"])}
    ratios["textbook loop/ours"] = median_ratio(times["textbook"], times["ours"])
    for variant in ("compiled", "bf16"):
        if variant in times:
            ratios[f"ours/{variant}"] = median_ratio(times["ours"], times[variant])
            ratios[f"textbook/{variant}"] = median_ratio(book, times[variant])
    return ratios


def median_ratio(above: Sequence[float], below: Sequence[float]) -> float:
    return statistics.median(one / other for one, other in zip(above, below, strict=True))


def print_epochs(rows: Sequence[dict[str, Any]], steps: Sequence[dict[str, Any]], facts: dict[str, Any]) -> None:
    floors = {(row["network"], row["method"]): row["floor"] for row in steps}
    print("## Epochs: the textbook's and ours, an iteration\n")
    print_table(
        "network | method | textbook: ms | ours: ms | textbook / ours | target | | "
        "textbook / floor | loop alone | loader: ms",
        (
            [
                row["network"],
                row["method"],
                *(f"{1e3 * statistics.median(row['times'][side]):.2f}" for side in ("textbook", "ours")),
                f"{row['textbook/ours']:.2f}",
                *verdict(row["textbook/ours"], TEXTBOOK_TARGETS[facts["kind"]].get(row["method"]), at_most=False),
                f"{statistics.median(row['times']['textbook']) / floors[row['network'], row['method']]:.2f}",
                f"{row['textbook loop/ours']:.2f}",
                f"{1e3 * statistics.median(row['times']['loader']):.0f}",
            ]
            for row in rows
        ),
    )
    if not bf16_is_worth_it(facts):
        print("bf16 is not measured: its matrix products are slower here than those of fp32.\n")
    options = [row for row in rows if {"compiled", "bf16"} & {*row["first"], *row["failed"]}]
    if not options:
        return
    print("## Ours, compiled and in bf16\n")
    print_table(
        "network | method | eager / compiled | compile: s | textbook / compiled | target | | fp32 / bf16 | target |",
        (
            [
                row["network"],
                row["method"],
                shown(row, "ours/compiled"),
                shown(row, "compile_seconds", digits=0),
                shown(row, "textbook/compiled"),
                *verdict(
                    row.get("textbook/compiled"), TEXTBOOK_TARGETS[facts["kind"]].get(row["method"]), at_most=False
                ),
                shown(row, "ours/bf16"),
                *verdict(
                    row.get("ours/bf16"),
                    BF16_TARGET if facts["amx"] or facts["kind"] == "cuda" else None,
                    at_most=False,
                ),
            ]
            for row in options
        ),
    )
    for row in options:
        for variant, error in row["failed"].items():
            print(f"{row['network']}, {row['method']}, {variant} failed: {error}\n")
