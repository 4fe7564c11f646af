"""Compares training steps with WGAN-GP, with the textbook and with the machine's limits.

Run ``python -m bench.performance``. It needs only torch and ``trainers``, and torch-fidelity for the evaluation; no
Ray, MLflow or Hydra. It prints Markdown; ``--output FILE`` also writes the raw figures as JSON. Images are random bytes
of the datasets' shapes, m = 64.

- **Time** is that of a critic and a generator iteration (``critic_iterations`` 1), in fp32, not compiled. All methods
  take turns of a few iterations within one process; the first turn does not count. The time is the median of the
  rounds. The **ratio** is the median over the rounds of time / WGAN-GP's time in the same round.
- **FLOPs** are counted by ``torch.utils.flop_counter`` in the real iteration: matrix products and convolutions in
  forward and backward passes of all orders, 2 per multiply-add. For (q,p) with B = both, the elementwise work of the
  ground costs is added by formula: 3 d (difference, power, sum) for each of 2 m² pairs, and as much in a generator's
  backward pass for each of m pairs, the minima. Other elementwise work is not counted.
- **Bytes** are the least that must move, in float32: 4 P (4 + 2 s) for P trained parameters (read, gradient written and
  read, written) with s slots of the optimizer (read and written), 4 P' for the other player's parameters (read), each
  byte of a layer's outputs twice (written, and read by the next layer or the backward pass; counted by hooks in the
  real iteration), and 4 m d for the minibatch.
- **Floor** = max(FLOPs / rate of a matrix product, bytes / rate of a copy), the sum of critic and generator, with rates
  measured on this machine. Data that fits a CPU's cache can move faster than the floor assumes.
- **Textbook / ours**: ``bench.textbook`` and ``Training.run_epoch`` take turns of the same number of iterations, for
  each method. Our time is a whole short epoch, including the work at its end. The textbook's time is its loop from the
  first batch on; the start of its workers is added once per epoch of the dataset's real length. Textbook / floor is the
  upper limit of textbook / ours on this machine in fp32. Compile time is the additional time until the first epoch of a
  compiled trial is over.
- **Memory** is the extra peak memory of the ground cost, forward and backward, with a gradient for every pair and with
  respect to both sides. Each side has 2 m points, as with B = both. On the CPU it is the peak of a separate process,
  whose allocator keeps nothing back; on CUDA it is what torch allocated. The gradients themselves take 4 · 2 · 2 m · d
  bytes of it. "In a step" is the part that a generator's step needs: m × m pairs twice, with a gradient for m pairs and
  one side.
- **Evaluation**: 10,000 samples of CIFAR-10's DCGAN, their features in a classifier with random weights (as fast as one
  with trained weights), FID alone, and all metrics.
"""
