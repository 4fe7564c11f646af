"""The same sweep by us and by common alternatives, in turns in one run: ``python -m bench.peers``.

The sweep has four cells of WGAN-GP on digits and two seeds, so eight trials. Every contender trains them with
``trainers``, on as many workers as there are processors. Every epoch goes to MLflow on SQLite. There is a checkpoint
every ten epochs if the contender supports checkpoints.

- ``orchestrator sweep``, then ``orchestrator resume``;
- bare Ray Tune, as in its guides: a grid search, checkpoints in ``tune.report``, ``MLflowLoggerCallback``, and
  ``Tuner.restore`` (``ray_tune.py``);
- Hydra multirun (``hydra_multirun.py``) with its own launcher, one trial after the other in one process, and with the
  joblib launcher (the package ``hydra-joblib-launcher``, skipped where it is not installed). Hydra cannot resume, so
  the same command is run again.

Measurements:

- **seconds** of the whole command without a disturbance.
- The command's process is killed (``kill -9``) when half of all epochs are done, and then resumed in the contender's
  own way. Measured are the **seconds to go on**, the finished **epochs** that were computed **again**, the number of
  **MLflow runs** for the eight trials, and the number of trials whose final FID is **equal**, to the last digit, to
  that of the undisturbed sweep.
- The number of trials whose undisturbed FID is **as ours**. It should be all of them, because all contenders train the
  same trials.

When a peer is killed, it leaves workers and servers behind. This program ends them before the second command, by a mark
in their environment. Our own command cleans up by itself.

``python -m bench.peers.searches`` compares searches in the same way, see ``searches.py``.
"""
