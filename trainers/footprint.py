"""The disk space of a trial's checkpoints, by a formula that needs neither torch nor the data."""

from __future__ import annotations

from trainers.config import TrialConfig
from trainers.networks import Weights

FLOAT = 4
SLOTS = {"adam": 2, "rmsprop": 1}
"""Tensors of a parameter's shape that its optimizer keeps: exp_avg and exp_avg_sq, or square_avg."""
RANDOM_STATE = 5056
"""Bytes of torch's random state on the CPU."""
SUMS = 5 * FLOAT
"""Bytes of the epoch's running sums, one for each statistic."""
TENSOR_OVERHEAD = 285
FILE_OVERHEAD = 500
"""Bytes that torch.save adds to each tensor (two zip headers, padding to 64 bytes, about 90 bytes of pickle), and to
each file (with its checksum). Fitted to files of torch 2.15."""

GRAPH_OVERHEAD, GRAPH_TENSOR_OVERHEAD = 10_000, 1_500
"""Bytes that ``torch.export`` adds to a graph and to each tensor: it describes tensors and operations in JSON."""


def checkpoint_bytes(config: TrialConfig) -> int:
    """The size in bytes of one of a trial's checkpoint files, once both optimizers have taken a step.

    The critic and the generator take 4 (1 + s) bytes a parameter, where s is the optimizer's number of slots (Adam 2,
    RMSProp 1), 4 bytes a parameter tensor for its step, and the buffers. The moving average, if the trial has one,
    takes 4 bytes a parameter of the generator, its buffers and a counter. The batch of noise, if the trial keeps it,
    takes 4 · batch size · latent size bytes. The random state is added, and what the file format adds to each tensor.
    """
    shape = config.dataset.shape
    critic = config.network.critic_weights(shape)
    generator = config.network.generator_weights(shape) if config.opponent.trained else Weights(0, 0)
    size, tensors = RANDOM_STATE + SUMS, 2
    for weights, options in ((critic, config.critic), (generator, config.generator)):
        slots = SLOTS[options.optimizer]
        size += FLOAT * ((1 + slots) * weights.parameters + weights.parameter_tensors) + weights.buffer_bytes
        tensors += (2 + slots) * weights.parameter_tensors + weights.buffer_tensors
    if config.generator.ema is not None:
        size += FLOAT * generator.parameters + generator.buffer_bytes + 8
        tensors += generator.parameter_tensors + generator.buffer_tensors + 1
    if config.reuse_batch:
        size += FLOAT * config.batch_size * config.latent_size
        tensors += 1
    return size + TENSOR_OVERHEAD * tensors + FILE_OVERHEAD


def generator_bytes(config: TrialConfig) -> int:
    """The size in bytes of a trial's final generator as ``torch.export`` writes it. 0 if the trial has no generator."""
    if not config.opponent.trained:
        return 0
    weights = config.network.generator_weights(config.dataset.shape)
    tensors = weights.parameter_tensors + weights.buffer_tensors
    return FLOAT * weights.parameters + weights.buffer_bytes + GRAPH_OVERHEAD + GRAPH_TENSOR_OVERHEAD * tensors
