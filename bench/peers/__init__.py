"""The same sweep by us and by what people use instead, in turns in one run: ``python -m bench.peers``.

Four cells of WGAN-GP on digits, two seeds: eight trials, trained by ``trainers`` for every contender, on as many
workers as there are processors, each epoch into MLflow on SQLite, a checkpoint every ten epochs where the contender
knows of any.

- ``orchestrator sweep``, then ``orchestrator resume``;
- bare Ray Tune, as its guides show it: a grid search, checkpoints in ``tune.report``, ``MLflowLoggerCallback``, and
  ``Tuner.restore`` (``ray_tune.py``);
- Hydra multirun (``hydra_multirun.py``) with its own launcher, one trial after the other in one process, and with the
  joblib launcher (the package ``hydra-joblib-launcher``, left out where it is not installed). It has no way to go on:
  the command is given again.

What is measured of each:

- **seconds** of the whole command, from nothing to results, undisturbed;
- the command's process is killed (``kill -9``) when half of all epochs are done, and the contender's own way on is
  taken: its **seconds to go on**, how many **epochs** that were done had to be computed **again**, how many **MLflow
  runs** there are then for eight trials, and for how many of them the final FID is **equal** to that of the undisturbed
  sweep to the last digit;
- for how many trials the undisturbed FID is **as ours**: all contenders train the same.

What a peer leaves behind when it is killed (workers, servers) is ended by this program before the second command, by a
mark in its environment; ours is left to itself.
"""
