"""What the trials of a sweep ask of their nodes, and whether this machine has it."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace

from orchestrator.engine.placement import Demand, demand_of
from orchestrator.errors import UserError
from orchestrator.store.decision_log import cell_key
from orchestrator.store.entry import known
from orchestrator.store.sweep import SweepStore
from orchestrator.sweep.file import Resources


def demands(store: SweepStore, trial_ids: Sequence[str], address: str | None) -> dict[str, Demand]:
    """What each trial asks of its node. Raises :class:`UserError` for anything that this machine does not have."""
    device_of = {trial_id: config["device"] for trial_id, config in store.configs(trial_ids)}
    resources = needed_resources(
        Resources(**known(Resources, store.plan()["resources"])), list(device_of.values()), address
    )
    return {trial_id: demand_of(resources, device_of.get(trial_id, "auto")) for trial_id in trial_ids}


def grown_demands(store: SweepStore, address: str | None) -> dict[str, Demand]:
    """What trials by which the plan may grow ask of their nodes, by their device. Raises as :func:`demands`.

    Such a trial has the configuration of a cell that the plan has: a planned one, or one that is searched.
    """
    grown = store.grown()
    if grown is None:
        return {}
    cells = {cell_key(entry.variant, entry.axes): entry.trial_id for entry in grown.planned}
    devices = {str(config["device"]) for _, config in store.configs(cells.values())}
    devices |= {str(group.config["device"]) for group in grown.growing.groups}
    resources = Resources(**known(Resources, store.plan()["resources"]))
    needed = needed_resources(resources, sorted(devices), address)
    return {device: demand_of(needed, device) for device in devices}


def needed_resources(
    resources: Resources,
    devices: Sequence[str],
    address: str | None,
    error: Callable[[str, str], UserError] = lambda key, problem: UserError(f"resources.{key}: {problem}"),
) -> Resources:
    """What a trial asks of its node. No GPU if every trial's device is cpu.

    Raises :class:`UserError` for processors or GPUs that this machine does not have. With an ``address`` this is not
    checked here, because Ray knows what the cluster has.
    """
    wanted = replace(resources, gpus=0.0) if set(devices) == {"cpu"} else resources
    if "cuda" in devices and not wanted.gpus:
        raise error("gpus", "device=cuda needs a GPU for each trial, or a fraction of one: resources: {gpus: 1}")
    if address is not None:
        return wanted
    if wanted.custom:
        raise error("custom", f"only nodes of a cluster can offer '{next(iter(wanted.custom))}'; give --address")
    processors = os.cpu_count() or 1
    if wanted.cpus > processors:
        raise error("cpus", f"a trial asks for {wanted.cpus:g} processors and this machine has {processors}")
    if wanted.gpus:
        import torch

        there = torch.cuda.device_count()
        if wanted.gpus > there:
            has = there or "none"
            raise error(
                "gpus",
                f"a trial asks for {wanted.gpus:g} GPUs and this machine has {has}; set device=cpu or leave gpus out",
            )
    return wanted
