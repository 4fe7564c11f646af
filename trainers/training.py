"""One trial's training: build, run epochs, evaluate, and carry on exactly where a checkpoint left off."""

from __future__ import annotations

import contextlib
import copy
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from trainers.checks import check_data, check_metrics, check_parts
from trainers.config import TrialConfig
from trainers.datasets import epoch_order, to_examples, to_input
from trainers.devices import peak_memory_mb, reset_peak_memory, resolve_device
from trainers.examples import Examples
from trainers.gradients import euclidean_norm, input_gradient
from trainers.optimizers import load_optimizer, make_optimizer
from trainers.pair import Pair
from trainers.probes.measure import probe
from trainers.steps import InBfloat16, compiled_critic_backward, compiled_generator_loss, critic_losses

EVALUATION_SEED = 20_190_221
FRESH_SEED = 20_190_222
"""Noise that no evaluation while training has seen: for what was chosen by the value it had there."""
GENERATION_BATCH = 500
GRID_SIZE = 64
REPAID_AFTER = 20_000
"""Critic iterations that repay compiling on a GPU: a guess, of a minute for it and 3 ms saved on each of them."""
STATISTICS = ("critic_loss", "dual_value", "penalty", "generator_loss", "generator_steps")


class Diverged(RuntimeError):
    """The loss or a parameter is no longer finite. Trying again with the same seed would end the same way."""


class Evaluated(NamedTuple):
    """``metrics`` by name, the first ``GRID_SIZE`` samples in the type of the dataset's examples, on the CPU, the
    curves of each probe by their names with the labels of their axes, and of probes that have one the picture, rows of
    examples."""

    metrics: dict[str, float]
    samples: Tensor
    curves: dict[str, dict[str, list[float]]]
    axes: dict[str, tuple[str, str]]
    pictures: dict[str, Tensor]


class Training:
    """A trial at work.

    ``cache_dir`` keeps what trials share (images, the classifier, reference features). ``run_epoch`` trains,
    ``evaluate`` measures, ``state_dict`` and ``load_state_dict`` stop and go on: on the CPU, with the
    configured number of threads, an interrupted trial equals an undisturbed one to the bit.
    """

    def __init__(self, config: TrialConfig, *, cache_dir: str | Path) -> None:
        self.config = config
        self.device = resolve_device(config.device)
        torch.set_num_threads(config.threads)
        torch.backends.cudnn.allow_tf32 = False  # fp32 means fp32, above all in a gradient penalty
        reset_peak_memory(self.device)
        self.data = config.dataset.load(Path(cache_dir))
        check_data(config.dataset, self.data)
        self._examples = Examples(self.data.train, self.device)
        self.iteration = 0
        self._reached = False
        self._summed_from = 0  # the critic iteration at which the sums of the current epoch begin
        self._interrupted_seconds = 0.0
        self.kept: dict[str, Any] = {}  # what probes need again at later evaluations, by their names
        self._order: tuple[int, Tensor] | None = None
        self._latent: Tensor | None = None  # kept where a batch is reused
        self._sums = torch.zeros(len(STATISTICS), device=self.device)
        self._seed_random_state()
        with self._own_random_state():
            shape = config.dataset.shape
            self.critic = config.network.build_critic(shape).to(self.device)
            self.generator = config.opponent.build(config, self.data).to(self.device)
        check_parts(self)
        self._critic_optimizer = make_optimizer(self.critic, config.critic)
        if self.device.type == "cpu":  # convolutions are faster so, by a tenth with Table 3's networks
            for network in (self.critic, self.generator):
                network.to(memory_format=torch.channels_last)
        weights = list(self.generator.parameters())
        self._generator_optimizer = make_optimizer(self.generator, config.generator) if weights else None
        self._average = None
        if config.generator.ema is not None:
            average = get_ema_multi_avg_fn(config.generator.ema)
            self._average = AveragedModel(self.generator, multi_avg_fn=average, use_buffers=True)
        bfloat16 = config.precision == "bf16"
        self._critic: nn.Module = InBfloat16(self.critic) if bfloat16 else self.critic
        self._generator: Callable[[Tensor], Tensor] = InBfloat16(self.generator) if bfloat16 else self.generator
        self._pair: Pair | None = None  # the critic step's, whose distances serve again where a batch is reused
        self._critic_backward: Callable[[Tensor, Tensor], Tensor] = self._eager_critic_backward
        self._generator_loss: Callable[[Tensor, Tensor], Tensor] = self._eager_generator_loss
        self.evaluator = config.evaluation.evaluator(self.data, config.objective.cost, Path(cache_dir), self.device)
        self.compile_seconds = 0.0
        if compiles(config, self.device):
            self._compile()

    @property
    def finished(self) -> bool:
        """Whether the budget of critic iterations is spent, or an evaluation was as good as ``evaluation.stop_at``."""
        return self.iteration >= self.config.budget or self._reached

    @property
    def epoch(self) -> int:
        """The number of whole epochs behind; the last one of the budget may be short."""
        full, rest = divmod(self.iteration, self.config.epoch_length)
        return full + (1 if rest and self.finished else 0)

    @property
    def evaluation_due(self) -> bool:
        """Whether, at this end of an epoch, another of the ``evaluation.times`` evaluations is reached."""
        previous = max(0, self.iteration - (self.iteration % self.config.epoch_length or self.config.epoch_length))
        times, budget = self.config.evaluation.times, self.config.budget
        return self.finished or self.iteration * times // budget > previous * times // budget

    def run_epoch(self, should_stop: Callable[[], bool] = lambda: False) -> dict[str, float] | None:
        """Trains to the end of the current epoch and returns its means, times and memory.

        Returns None if ``should_stop()`` became true first: the state then stands in the middle of the epoch,
        and the next call finishes it. Raises :class:`Diverged`, and RuntimeError once the budget is spent.

        ``critic_loss``, ``generator_loss``, ``dual_value`` = mean φ(x) + mean ψ(y) and ``penalty`` are means over
        the epoch; ``wasserstein_estimate`` = max(dual_value, 0)^{1/p}; ``critic_gradient_norm`` = mean ‖∇φ‖₂ half-way
        between the epoch's last real and fake minibatch, dropout off; ``epoch_seconds`` is training alone, device
        synchronised; ``images_per_second`` counts real images; ``peak_memory_mb`` is the device's, or on the CPU
        the process's. The first record of a compiled training has ``compile_seconds``, which no epoch's seconds hold.
        """
        if self.finished:
            raise RuntimeError(f"the budget of {self.config.budget} critic iterations is spent, or stop_at was reached")
        length = self.config.epoch_length
        end = min((self.iteration // length + 1) * length, self.config.budget)
        iterations = end - self._summed_from
        started = time.perf_counter()
        self.critic.train()
        self.generator.train()
        with self._own_random_state():
            while self.iteration < end:
                if should_stop():
                    self._interrupted_seconds += self._seconds_since(started)
                    return None
                last = self._iterate()
        self._raise_if_diverged()
        seconds = self._interrupted_seconds + self._seconds_since(started)
        record = self._summary(iterations)
        record |= {
            "critic_gradient_norm": self._critic_gradient_norm(*last),
            "epoch_seconds": seconds,
            "images_per_second": iterations * self.config.batch_size / seconds,
            "peak_memory_mb": peak_memory_mb(self.device),
        }
        if self.compile_seconds:
            record["compile_seconds"], self.compile_seconds = self.compile_seconds, 0.0
        self._interrupted_seconds = 0.0
        self._summed_from = self.iteration
        self._sums.zero_()
        return record

    def evaluate(self, seed: int = EVALUATION_SEED) -> Evaluated:
        """Metrics of the generator as it stands (or of its moving average), from fixed noise, in eval mode; and probes.

        ``evaluation_seconds`` covers sampling, measuring and probing.

        Training's random state is not touched, and the generator is back in its mode afterwards.
        """
        started = time.perf_counter()
        count = self.evaluator.count if self.evaluator else 0
        samples = self.sample(max(GRID_SIZE, count), seed)
        metrics = self.evaluator.measure(samples[:count]) if self.evaluator else {}
        evaluation = self.config.evaluation
        check_metrics(evaluation, metrics, stated := (*evaluation.metrics, *evaluation.also_logged), stated)
        self._reached = self._reached or (self.iteration > 0 and evaluation.reached(metrics))
        probed = {each.name: probe(each, self) for each in self.config.probes}
        for each in self.config.probes:
            check_metrics(each, probed[each.name].metrics, each.metrics, each.metrics[:1])
            metrics |= probed[each.name].metrics
        metrics |= {"evaluation_seconds": time.perf_counter() - started}
        curves = {name: each.curves for name, each in probed.items()}
        pictures = {name: each.picture for name, each in probed.items() if each.picture is not None}
        axes = {each.name: each.axes for each in self.config.probes}
        return Evaluated(metrics, samples[:GRID_SIZE], curves, axes, pictures)

    def population_distance(self) -> float | None:
        """W_{q,p} of the distributions behind the minibatches, where it is known."""
        return self.config.opponent.population_distance(self.data, self.config.objective.cost)

    @torch.no_grad()
    def sample(self, count: int, seed: int = EVALUATION_SEED) -> Tensor:
        """``count`` samples of the opponent on the CPU, from noise that depends on ``seed`` alone."""
        generator = self._average.module if self._average is not None else self.generator
        modes = [(network, network.training) for network in (generator, self.critic)]
        for network, _ in modes:
            network.eval()
        source = torch.Generator().manual_seed(seed)
        latent = torch.randn(count, self.config.latent_size, generator=source)
        batches = (self.to_samples(generator(part.to(self.device))) for part in latent.split(GENERATION_BATCH))
        examples = [to_examples(batch, like=self.data.train).cpu() for batch in batches]
        for network, was_training in modes:
            network.train(was_training)
        return torch.cat(examples)

    def to_samples(self, points: Tensor) -> Tensor:
        """The opponent's points as samples. Raises :class:`Diverged` where they leave float32 on the way."""
        try:
            return self.config.opponent.to_samples(points, self.critic, self.config.objective.cost)
        except FloatingPointError as error:
            raise Diverged(f"{error} after critic iteration {self.iteration}") from None

    def state_dict(self) -> dict[str, Any]:
        """Everything that the rest of the trial depends on: tensors, numbers and dictionaries of them."""
        return {
            "iteration": self.iteration,
            "reached": self._reached,
            "summed_from": self._summed_from,
            "interrupted_seconds": self._interrupted_seconds,
            "sums": self._sums,
            "latent": self._latent,
            "random_state": self._random_state,
            "critic": self.critic.state_dict(),
            "generator": self.generator.state_dict(),
            "critic_optimizer": self._critic_optimizer.state_dict(),
            "generator_optimizer": self._generator_optimizer and self._generator_optimizer.state_dict(),
            "average": None if self._average is None else self._average.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes back to where :meth:`state_dict` was taken, from the same configuration or a smaller budget's end."""
        self.iteration = state["iteration"]
        self._reached = state.get("reached", False)  # which checkpoints of earlier versions have not
        self._summed_from = state["summed_from"]
        self._interrupted_seconds = state["interrupted_seconds"]
        self._sums.copy_(state["sums"])
        self._latent = None if state["latent"] is None else state["latent"].to(self.device)
        self._random_state = {name: tensor.cpu() for name, tensor in state["random_state"].items()}
        self.critic.load_state_dict(state["critic"])
        self.generator.load_state_dict(state["generator"])
        load_optimizer(self._critic_optimizer, state["critic_optimizer"])
        if self._generator_optimizer is not None:
            load_optimizer(self._generator_optimizer, state["generator_optimizer"])
        if self._average is not None:
            self._average.load_state_dict(state["average"])

    def _iterate(self) -> tuple[Tensor, Tensor]:
        """One critic iteration, and after every ``critic_iterations`` of them one generator iteration.

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
        fake = self._critic_step(real, latent)
        self.iteration += 1
        if position == config.critic_iterations - 1 and self._generator_optimizer is not None:
            self._generator_step(self._generator_optimizer, real, latent if config.reuse_batch else self._noise())
        return real, fake

    def _critic_step(self, real: Tensor, latent: Tensor) -> Tensor:
        with torch.no_grad():
            fake = self._generator(latent)
        self._critic_optimizer.zero_grad(set_to_none=True)
        self._sums[:3] += self._critic_backward(real, fake)
        self._critic_optimizer.step()
        self.config.penalty.constrain(self.critic)
        return fake

    def _eager_critic_backward(self, real: Tensor, fake: Tensor) -> Tensor:
        pair = Pair(self.config.objective, self._critic, *self.config.opponent.in_order(real, fake), earlier=self._pair)
        losses = critic_losses(self.config, self._critic, pair)
        losses[0].backward(inputs=list(self.critic.parameters()))  # and not the points that a penalty differentiates at
        if self.config.reuse_batch and self.device.type == "cpu":  # a GPU would wait to know which points are the same
            self._pair = pair.measured()
        return torch.stack(losses).detach()

    def _generator_step(self, optimizer: torch.optim.Optimizer, real: Tensor, latent: Tensor) -> None:
        self.critic.requires_grad_(False)
        loss = self._generator_loss(real, latent)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        self.critic.requires_grad_(True)
        if self._average is not None:
            self._average.update_parameters(self.generator)
        self._sums[3] += loss.detach()
        self._sums[4] += 1

    def _eager_generator_loss(self, real: Tensor, latent: Tensor) -> Tensor:
        pair = Pair(self.config.objective, self._critic, real, self._generator(latent), earlier=self._pair)
        return self.config.objective.generator_loss(pair)

    def _compile(self) -> None:
        """Replaces the steps by compiled ones, and runs each once, without effect, so that the time is known."""
        started = time.perf_counter()
        torch.compiler.reset()  # a process of many trials would reach the limit of graphs that one function may have
        before = copy.deepcopy(self.state_dict())
        self._critic_backward = compiled_critic_backward(self.config, self._critic)
        self._generator_loss = compiled_generator_loss(self.config, self._critic, self._generator)
        self._generator = torch.compile(self._generator, dynamic=False)
        self.critic.train()
        self.generator.train()
        with self._own_random_state():
            real, latent = self._real_batch(0), self._noise()
            self._critic_step(real, latent)
            if self._generator_optimizer is not None:
                self._generator_step(self._generator_optimizer, real, latent)
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

    def _summary(self, iterations: int) -> dict[str, float]:
        sums = dict(zip(STATISTICS, self._sums.tolist(), strict=True))
        dual_value = sums["dual_value"] / iterations
        summary = {
            "critic_loss": sums["critic_loss"] / iterations,
            "dual_value": dual_value,
            "wasserstein_estimate": max(dual_value, 0.0) ** (1 / self.config.objective.cost.p),
            "penalty": sums["penalty"] / iterations,
        }
        if sums["generator_steps"]:  # an epoch shorter than critic_iterations may have none
            summary["generator_loss"] = sums["generator_loss"] / sums["generator_steps"]
        return summary

    def _critic_gradient_norm(self, real: Tensor, fake: Tensor) -> float:
        self.critic.eval()
        gradient = input_gradient(self.critic, (real + fake) / 2, differentiable=False)
        self.critic.train()
        return euclidean_norm(gradient).mean().item()

    def _raise_if_diverged(self) -> None:
        finite = torch.stack([p.isfinite().all() for net in (self.critic, self.generator) for p in net.parameters()])
        if not (self._sums.isfinite().all() and finite.all()):
            raise Diverged(f"a loss or parameter is not finite after critic iteration {self.iteration}")

    def _seconds_since(self, started: float) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter() - started

    def _seed_random_state(self) -> None:
        with torch.random.fork_rng(devices=self._cuda_devices):
            torch.manual_seed(self.config.seed)
            self._random_state = self._global_random_state()

    @contextlib.contextmanager
    def _own_random_state(self) -> Iterator[None]:
        """torch's global random state, dropout's too, is this trial's inside and everybody else's outside."""
        with torch.random.fork_rng(devices=self._cuda_devices):
            torch.set_rng_state(self._random_state["cpu"])
            if "cuda" in self._random_state:
                torch.cuda.set_rng_state(self._random_state["cuda"], self.device)
            yield
            self._random_state = self._global_random_state()

    def _global_random_state(self) -> dict[str, Tensor]:
        state = {"cpu": torch.get_rng_state()}
        if self.device.type == "cuda":
            state["cuda"] = torch.cuda.get_rng_state(self.device)
        return state

    @property
    def _cuda_devices(self) -> list[torch.device]:
        return [self.device] if self.device.type == "cuda" else []


def compiles(config: TrialConfig, device: torch.device) -> bool:
    """Whether the steps of a trial are compiled."""
    if config.compile == "auto":
        return device.type == "cuda" and config.budget >= REPAID_AFTER
    return config.compile
