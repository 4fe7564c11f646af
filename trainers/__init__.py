"""One trial of a Wasserstein GAN: data, networks, objective, penalty and metrics.

``TrialConfig`` describes a trial, and ``Training`` runs it. The package uses torch, but neither Ray, MLflow, Hydra nor
the orchestrator, so a trial can run in a notebook::

    from trainers.config import TrialConfig
    from trainers.training import Training

    training = Training(TrialConfig.from_dict(values), cache_dir="cache")
    while not training.finished:
        print(training.run_epoch())

Importing the package, or any module that only describes a trial (``config``, ``parts``, ``objectives``,
``penalties``, ``networks``, ``datasets``, ``evaluation``, ``opponents``, ``probes``, ``metrics``), does not import
torch. So a plan of a thousand trials is validated in well under a second.
"""
