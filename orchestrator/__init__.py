"""Sweeps of Wasserstein-GAN trials: from a YAML file through Ray Tune to a comparison table.

The way through: ``sweep_file`` reads, ``plan`` lists the trials, ``store`` keeps the only truth about what has
happened, ``executor`` hands trials to Ray Tune, ``worker`` runs one, ``tracking`` mirrors the store into MLflow,
``results`` and ``tables`` compare. ``driver`` ties them together for one sweep; ``cli`` is thin.
"""
