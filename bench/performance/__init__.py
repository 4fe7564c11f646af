"""Training steps beside WGAN-GP's, the textbook's and the machine's limits: ``python -m bench.performance``.

Needs torch and ``trainers`` alone (torch-fidelity for the evaluation): no Ray, MLflow or Hydra. Prints Markdown; with
``--output FILE`` the raw figures as JSON too. Images are random bytes of the datasets' shapes, m = 64.

- **Time** of a critic and a generator iteration (``critic_iterations`` 1), in fp32, not compiled: all methods take
  turns of a few iterations within one process, after a turn that does not count; the median of the rounds. The
  **ratio** is the median over the rounds of time / WGAN-GP's time in the same round.
- **FLOPs** are what ``torch.utils.flop_counter`` counts in the real iteration (matrix products and convolutions,
  forward and backward passes of all orders, 2 a multiply-add), and for (q,p) with B = both the ground costs'
  elementwise work by formula: 3 d (difference, power, sum) for each of 2 m² pairs, and as much in a generator's
  backward pass for each of m pairs, the minima. Other elementwise work is not counted.
- **Bytes** that must move at least, in float32: 4 P (4 + 2 s) for P trained parameters (read, gradient written and
  read, written) with s slots of the optimizer (read and written), 4 P' for the other player's parameters (read), each
  byte of a layer's outputs twice (written, read by the next layer or the backward pass), counted by hooks in the real
  iteration, and 4 m d for the minibatch.
- **Floor** = max(FLOPs / rate of a matrix product, bytes / rate of a copy), critic's and generator's added, with the
  rates measured here. What fits a CPU's cache can be faster than memory.
- **Textbook / ours**: ``bench.textbook`` and ``Training.run_epoch`` take turns of as many iterations, each method.
  Ours is a whole short epoch, with what an epoch does at its end; the textbook's time is its loop from the first batch
  on, and the start of its workers is added once an epoch of the dataset's real length, as the ratio of epochs wants it.
  Textbook / floor is what no faster code of ours could exceed on this machine in fp32. Compile time is how much longer
  a compiled trial takes until its first epoch is over.
- **Memory** of the ground cost, forward and backward with a gradient for every pair and with respect to both sides,
  beyond what was there: 2 m points on either side, as B = both has. On the CPU the peak of a process of its own, whose
  allocator keeps nothing back; on CUDA what torch allocated. The gradients themselves are 4 · 2 · 2 m · d bytes of it.
  "In a step" is what a generator's step has of it: m × m pairs twice, a gradient for m of them and one side.
- **Evaluation**: 10,000 samples of CIFAR-10's DCGAN, their features in a classifier of random weights (the time is that
  of trained ones), FID alone, and all metrics.
"""
