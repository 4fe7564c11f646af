"""One trial's training: build it, run epochs, evaluate, and resume exactly from a checkpoint."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from trainers.checks import check_data, check_metrics, check_parts
from trainers.config import TrialConfig
from trainers.data.examples import Examples
from trainers.datasets import epoch_order, to_examples, to_input
from trainers.devices import peak_memory_mb, reset_peak_memory, resolve_device
from trainers.probes.measure import probe
from trainers.random_state import RandomState
from trainers.steps import Steps, compiles
from trainers.stopping import between, stop_if_asked, stoppable
from trainers.transport.gradients import euclidean_norm, input_gradient

EVALUATION_SEED = 20_190_221
FRESH_SEED = 20_190_222
"""The seed of noise that no evaluation during training uses.

A checkpoint that was chosen by its value on the usual noise is measured without bias on this noise."""
GENERATION_BATCH = 500
GRID_SIZE = 64


class Diverged(RuntimeError):
    """The loss or a parameter is no longer finite. A retry with the same seed would end in the same way."""


class Evaluated(NamedTuple):
    """The results of one evaluation.

    - ``metrics``: values by name.
    - ``samples``: the first ``GRID_SIZE`` samples, on the CPU, in the type of the dataset's examples.
    - ``curves``: for each probe, its curves by name.
    - ``axes``: for each probe, the labels of its curves' axes.
    - ``pictures``: for each probe that has one, its picture, rows of examples.
    """

    metrics: dict[str, float]
    samples: Tensor
    curves: dict[str, dict[str, list[float]]]
    axes: dict[str, tuple[str, str]]
    pictures: dict[str, Tensor]


class Training:
    """Runs one trial.

    ``cache_dir`` holds what trials share (images, the classifier, reference features). :meth:`run_epoch` trains and
    :meth:`evaluate` measures. :meth:`state_dict` and :meth:`load_state_dict` interrupt and resume a trial. On the CPU,
    with the configured number of threads, a resumed trial equals an uninterrupted one to the bit.
    """

    def __init__(self, config: TrialConfig, *, cache_dir: str | Path) -> None:
        self.config = config
        self.device = resolve_device(config.device)
        torch.set_num_threads(config.threads)
        reset_peak_memory(self.device)
        self.data = config.dataset.load(Path(cache_dir))
        check_data(config.dataset, self.data)
        self._examples = Examples(self.data.train, self.device)
        self.iteration = 0
        self._reached = False
        self._summed_from = 0  # the critic iteration at which the sums of the current epoch begin
        self._interrupted_seconds = 0.0
        self._put_back: dict[str, float] | None = None
        self.kept: dict[str, Any] = {}  # what probes need again at later evaluations, by the probe's name
        self._order: tuple[int, Tensor] | None = None
        self._latent: Tensor | None = None  # kept only with reuse_batch
        self._random_state = RandomState(config.seed, self.device)
        with self._random_state.inside():
            self.critic = config.network.build_critic(config.dataset.shape).to(self.device)
            self.generator = config.opponent.build(config, self.data).to(self.device)
        with self._random_state.elsewhere():
            check_parts(self)
        self._steps = Steps(config, self.critic, self.generator, self.device)
        self.evaluator = config.evaluation.evaluator(self.data, config.objective.cost, Path(cache_dir), self.device)
        self.compile_seconds = 0.0
        if compiles(config, self.device):
            self._compile()

    @property
    def finished(self) -> bool:
        """Whether the budget of critic iterations is spent, or an evaluation has reached ``evaluation.stop_at``.

        A training whose last epoch was put back is not finished.
        """
        return self._put_back is None and (self.iteration >= self.config.budget or self._reached)

    @property
    def evaluated_generator(self) -> nn.Module:
        """The generator that evaluations use: its moving average if the trial has one."""
        return self._steps.average.module if self._steps.average is not None else self.generator

    @property
    def epoch(self) -> int:
        """The number of finished epochs. The last epoch of the budget may be short."""
        full, rest = divmod(self.iteration, self.config.epoch_length)
        return full + (1 if rest and self.finished else 0)

    @property
    def evaluation_due(self) -> bool:
        """Whether one of the ``evaluation.times`` evaluations is due at the end of this epoch."""
        previous = max(0, self.iteration - (self.iteration % self.config.epoch_length or self.config.epoch_length))
        times, budget = self.config.evaluation.times, self.config.budget
        return self.finished or self.iteration * times // budget > previous * times // budget

    def run_epoch(self, should_stop: Callable[[], bool] = lambda: False) -> dict[str, float] | None:
        """Trains to the end of the current epoch and returns its means, times and memory.

        Returns None if ``should_stop()`` became true first. The training then stands in the middle of the epoch, and
        the next call finishes it. Raises :class:`Diverged` if a loss or parameter is not finite, and RuntimeError if
        the training is already finished.

        ``critic_loss``, ``generator_loss``, ``dual_value`` = mean φ(x) + mean ψ(y) and ``penalty`` are means over the
        epoch. ``wasserstein_estimate`` = max(dual_value, 0)^{1/p}. ``critic_gradient_norm`` = mean ‖∇φ‖₂ half-way
        between the epoch's last real and fake minibatch, without dropout. ``epoch_seconds`` is the time of training
        alone, with the device synchronised. ``images_per_second`` counts real images. ``peak_memory_mb`` is the
        device's peak memory, or on the CPU the process's. The first record of a compiled training also has
        ``compile_seconds``, which is not part of ``epoch_seconds``.
        """
        if self.finished:
            raise RuntimeError(f"the budget of {self.config.budget} critic iterations is spent, or stop_at was reached")
        if self._put_back is not None:
            record, self._put_back = self._put_back, None
            return record
        length = self.config.epoch_length
        end = min((self.iteration // length + 1) * length, self.config.budget)
        started = time.perf_counter()
        self.critic.train()
        self.generator.train()
        with self._random_state.inside():
            while self.iteration < end:
                if should_stop():
                    self._interrupted_seconds += self._seconds_since(started)
                    return None
                last = self._iterate()
        if not self._steps.finite:
            raise Diverged(f"a loss or parameter is not finite after critic iteration {self.iteration}")
        return self._end_of_epoch(*last, self._interrupted_seconds + self._seconds_since(started))

    def _end_of_epoch(self, real: Tensor, fake: Tensor, seconds: float) -> dict[str, float]:
        """Returns the epoch's record after its last pair of minibatches, and resets the sums for the next epoch."""
        iterations = self.iteration - self._summed_from
        record = self._steps.means(iterations) | {
            "critic_gradient_norm": self._critic_gradient_norm(real, fake),
            "epoch_seconds": seconds,
            "images_per_second": iterations * self.config.batch_size / seconds,
            "peak_memory_mb": peak_memory_mb(self.device),
        }
        if self.compile_seconds:
            record["compile_seconds"], self.compile_seconds = self.compile_seconds, 0.0
        self._interrupted_seconds = 0.0
        self._summed_from = self.iteration
        self._steps.sums.zero_()
        return record

    def put_back(self, record: Mapping[str, float]) -> None:
        """Takes back the record of the epoch that has just ended: the next :meth:`run_epoch` returns it, and no other.

        For a caller whose evaluation was stopped. A checkpoint holds the record too, so that resuming repeats the
        evaluation and not the epoch.
        """
        self._put_back = dict(record)

    def evaluate(self, seed: int = EVALUATION_SEED, should_stop: Callable[[], bool] = lambda: False) -> Evaluated:
        """Measures the generator (or its moving average) in eval mode on noise from ``seed``, and runs the probes.

        ``evaluation_seconds`` is the time of sampling, measuring and probing. The evaluation does not touch training's
        random state, and afterwards the networks are in the same mode as before. Raises
        :class:`~trainers.stopping.Stopped` if ``should_stop()`` becomes true between two batches; then the training is
        as if it had not been evaluated.
        """
        with stoppable(should_stop):
            return self._evaluate(seed)

    def _evaluate(self, seed: int) -> Evaluated:
        started = time.perf_counter()
        count = self.evaluator.count if self.evaluator else 0
        samples = self.sample(max(GRID_SIZE, count), seed)
        if self.evaluator:
            stop_if_asked()
        metrics = self.evaluator.measure(samples[:count]) if self.evaluator else {}
        evaluation = self.config.evaluation
        check_metrics(evaluation, metrics, stated := (*evaluation.metrics, *evaluation.also_logged), stated)
        reached = self.iteration > 0 and evaluation.reached(metrics)
        probed = {each.name: probe(each, self) for each in between(self.config.probes)}
        self._reached = self._reached or reached
        for each in self.config.probes:
            check_metrics(each, probed[each.name].metrics, each.metrics, each.metrics[:1])
            metrics |= probed[each.name].metrics
        metrics |= {"evaluation_seconds": time.perf_counter() - started}
        curves = {name: each.curves for name, each in probed.items()}
        pictures = {name: each.picture for name, each in probed.items() if each.picture is not None}
        axes = {each.name: each.axes for each in self.config.probes}
        return Evaluated(metrics, samples[:GRID_SIZE], curves, axes, pictures)

    def population_distance(self) -> float | None:
        """W_{q,p} between the distributions that the minibatches are drawn from. None where it is unknown."""
        return self.config.opponent.population_distance(self.data, self.config.objective.cost)

    @torch.no_grad()
    def sample(self, count: int, seed: int = EVALUATION_SEED) -> Tensor:
        """``count`` samples of the opponent, on the CPU, from noise that depends only on ``seed``.

        Raises :class:`~trainers.stopping.Stopped`.
        """
        generator = self.evaluated_generator
        source = torch.Generator().manual_seed(seed)
        latent = torch.randn(count, self.config.latent_size, generator=source)
        modes = [(network, network.training) for network in (generator, self.critic)]
        for network, _ in modes:
            network.eval()
        try:
            parts = between(latent.split(GENERATION_BATCH))
            batches = (self.to_samples(generator(part.to(self.device))) for part in parts)
            return torch.cat([to_examples(batch, like=self.data.train).cpu() for batch in batches])
        finally:
            for network, was_training in modes:
                network.train(was_training)

    def to_samples(self, points: Tensor) -> Tensor:
        """Turns the opponent's points into samples. Raises :class:`Diverged` if a value exceeds float32's range."""
        try:
            return self.config.opponent.to_samples(points, self.critic, self.config.objective.cost)
        except FloatingPointError as error:
            raise Diverged(f"{error} after critic iteration {self.iteration}") from None

    def state_dict(self) -> dict[str, Any]:
        """Everything that the rest of the trial depends on, as tensors, numbers and dictionaries of these."""
        return {
            "iteration": self.iteration,
            "reached": self._reached,
            "summed_from": self._summed_from,
            "interrupted_seconds": self._interrupted_seconds,
            **({} if self._put_back is None else {"put_back": self._put_back}),
            "latent": self._latent,
            "random_state": self._random_state.state,
            **self._steps.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores the state that :meth:`state_dict` returned.

        The state may come from a trial of the same configuration, or from the end of one with a smaller budget.
        """
        self.iteration = state["iteration"]
        self._reached = state.get("reached", False)  # missing in checkpoints of earlier versions
        self._summed_from = state["summed_from"]
        self._interrupted_seconds = state["interrupted_seconds"]
        self._put_back = state.get("put_back")
        self._latent = None if state["latent"] is None else state["latent"].to(self.device)
        self._random_state.load(state["random_state"])
        self._steps.load_state_dict(state)

    def _iterate(self) -> tuple[Tensor, Tensor]:
        """Runs one critic iteration, and after every ``critic_iterations`` of them one generator iteration.

        Returns the critic's real and fake minibatch.
        """
        config = self.config
        position = self.iteration % config.critic_iterations
        if config.reuse_batch:
            real = self._real_batch(self.iteration - position)
            if position == 0 or self._latent is None:
                self._latent = self._noise()
            latent = self._latent
        else:
            real, latent = self._real_batch(self.iteration), self._noise()
        fake = self._steps.critic(real, latent)
        self.iteration += 1
        if position == config.critic_iterations - 1 and self._steps.train_generator:
            self._steps.generator(real, latent if config.reuse_batch else self._noise())
        return real, fake

    def _compile(self) -> None:
        """Compiles the steps and measures the time: runs each step once, then restores the state."""
        started = time.perf_counter()
        before = copy.deepcopy(self.state_dict())
        self._steps.compile()
        self.critic.train()
        self.generator.train()
        with self._random_state.inside():
            real, latent = self._real_batch(0), self._noise()
            self._steps.critic(real, latent)
            if self._steps.train_generator:
                self._steps.generator(real, latent)
        self.load_state_dict(before)
        self.compile_seconds = self._seconds_since(started)

    def _real_batch(self, iteration: int) -> Tensor:
        epoch, position = divmod(iteration, self.config.epoch_length)
        if self._order is None or self._order[0] != epoch:
            self._order = epoch, epoch_order(len(self.data.train), self.config.seed, epoch).to(self._examples.device)
        start = position * self.config.batch_size
        return to_input(self._examples.batch(self._order[1][start : start + self.config.batch_size]))

    def _noise(self) -> Tensor:
        return torch.randn(self.config.batch_size, self.config.latent_size, device=self.device)

    def _critic_gradient_norm(self, real: Tensor, fake: Tensor) -> float:
        self.critic.eval()
        gradient = input_gradient(self.critic, (real + fake) / 2, differentiable=False)
        self.critic.train()
        return euclidean_norm(gradient).mean().item()

    def _seconds_since(self, started: float) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter() - started
