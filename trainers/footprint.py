"""How much disk space a trial's checkpoints take, by formula: neither torch nor the data are needed."""

from __future__ import annotations

from trainers.config import TrialConfig
from trainers.networks import Weights

FLOAT = 4
SLOTS = {"adam": 2, "rmsprop": 1}
"""Tensors like the parameter that an optimizer keeps for each: exp_avg and exp_avg_sq, or square_avg."""
RANDOM_STATE = 5056
"""Bytes of torch's random state on the CPU."""
SUMS = 5 * FLOAT
"""The epoch's running sums, one of each statistic."""
TENSOR_OVERHEAD = 285
FILE_OVERHEAD = 500
"""Bytes that torch.save adds to each tensor (two zip headers, padding to 64 bytes, some 90 bytes of pickle) and to
each file (checksum included), fitted to files of torch 2.15."""

GRAPH_OVERHEAD, GRAPH_TENSOR_OVERHEAD = 10_000, 1_500
"""The same of an exported graph, whose tensors and operations are described in JSON."""


def checkpoint_bytes(config: TrialConfig) -> int:
    """The size of one checkpoint file of a trial in bytes, once both optimizers have made a step.

    Critic and generator: 4 (1 + s) bytes a parameter with s slots of the optimizer (Adam 2, RMSProp 1), 4 bytes a
    parameter tensor for its step, and the buffers. Then the moving average (4 bytes a parameter of the generator, its
    buffers, a counter) and the batch of noise (4 · batch size · latent size bytes) where the trial keeps them, the
    random state, and what the file format adds to each tensor.
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
    """The size of a trial's final generator alone, as ``torch.export`` writes it; 0 where there is none."""
    if not config.opponent.trained:
        return 0
    weights = config.network.generator_weights(config.dataset.shape)
    tensors = weights.parameter_tensors + weights.buffer_tensors
    return FLOAT * weights.parameters + weights.buffer_bytes + GRAPH_OVERHEAD + GRAPH_TENSOR_OVERHEAD * tensors
