"""Every use of a private or undocumented part of Ray, each with its reason. A test lets no other module touch one.

Importing this module imports Ray and Ray Tune, and checks that the parts in :data:`NEEDED` are there. So it is imported
inside functions, after ``prepare_environment`` of :mod:`orchestrator.engine.tune` has set the variables that Ray reads
when it is imported. Those variables stand there and in :mod:`orchestrator.engine.head` for the same reason.

Everything here was seen to work with Ray 2.59.0 and 2.60.0, the lowest and the highest that ``pyproject.toml`` allows.
"""

from __future__ import annotations

import contextlib
import inspect
import pkgutil
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.errors import unsuitable

VERSIONS = ">=2.59,<2.61"
"""The versions that work, as ``pyproject.toml`` has them."""

NEEDED: dict[str, tuple[str, ...]] = {
    "ray:init": ("_temp_dir",),
    "ray._private.node:Node.dead_processes": (),
    "ray._private.node:Node.kill_all_processes": ("check_alive", "allow_graceful"),
    "ray._private.worker:_global_node": (),
    "ray._private.worker:connect": ("gcs_client", "_py_driver_sys_path", "_serialize"),
    "ray._private.worker:global_worker": (),
    "ray._raylet:GcsClient": (),
    "ray._raylet:InnerGcsClient.cluster_id": (),  # what GcsClient hands its calls on to
    "ray._raylet:InnerGcsClient.get_all_node_info": (),
    "ray.job_config:JobConfig._serialize": (),
    "ray.core.generated.gcs_pb2:GcsNodeInfo": (
        "node_id",
        "node_manager_address",
        "node_manager_hostname",
        "resources_total",
        "state",
    ),
    "ray.tune.callback:CallbackList.__init__": ("_callbacks",),
    "ray.tune.execution.tune_controller:TuneController.__init__": (
        "_callbacks",
        "_failed_trials",
        "_live_trials",
        "_stopped_trials",
        "_trial_metadata",
        "_trials",
        "_trials_to_cache",
    ),
    "ray.tune.execution.tune_controller:TuneController.get_trials": (),
    "ray.tune.execution.tune_controller:TuneController.stop_trial": (),
    "ray.tune.execution.tune_controller:TuneController._process_trial_failure": ("handle_error", "on_trial_complete"),
    "ray.tune.experiment:Trial.handle_error": ("invalidate_cache", "num_failures", "run_metadata"),
    "ray.tune.experiment:Trial.init_local_path": (),
    "ray.tune.experiment:Trial.is_finished": (),
    "ray.tune.progress_reporter:TrialProgressCallback": (),
    "ray.util.placement_group:placement_group": ("bundle_label_selector",),
}
"""The parts that are used: ``module:object``, and the names that the object's code or message must contain."""

ESSENTIAL = ("gcs_server", "raylet")
"""The processes without which a local Ray ends. The raylet ends itself if one of its agents ends."""
LONGEST_SESSION_FOLDER = 107 - len("/session_2026-01-31_23-59-59_123456_1234567/sockets/plasma_store")
"""The longest path of a folder for Ray's session, in bytes. Linux allows 107 for a socket's path, and the process id
may have seven digits. Seen to work with Ray 2.59.0 and 2.60.0."""

NODE_ID = "ray.io/node-id"
"""The label that Ray gives every node."""


def cluster_id(address: str) -> str:
    """The id of the cluster whose head answers at ``address``. Raises Ray's AuthenticationError or another RayError.

    Reason: Ray has no public way to ask a head who it is. ``ray.init`` with a wrong token tries for twenty seconds
    and hides why. Seen to work with Ray 2.59.0 and 2.60.0.
    """
    from ray._raylet import GcsClient  # type: ignore[attr-defined]

    return str(GcsClient(address=address).cluster_id.hex())


def alive_nodes(timeout: float) -> list[tuple[str, str, dict[str, float]]]:
    """The id, a name for people, and the resources of every node that is alive in the cluster we have joined.

    Raises a RayError when the head has not answered within ``timeout`` seconds. Reason: ``ray.nodes()`` has no
    timeout. It hangs if the head is gone, and ends the process if a head was restarted without its state.
    Seen to work with Ray 2.59.0 and 2.60.0.
    """
    from ray._private.worker import global_worker

    found = global_worker.gcs_client.get_all_node_info(timeout=timeout)  # type: ignore[attr-defined]
    return [
        (
            node.node_id.hex(),
            f"{node.node_manager_hostname} ({node.node_manager_address})",
            dict(node.resources_total),
        )
        for node in found.values()
        if node.state == node.ALIVE
    ]


def avoiding(node_ids: str) -> dict[str, Any]:
    """Arguments for ``PlacementGroupFactory`` that keep a trial off these nodes (ids separated by commas).

    Reason: Tune has no option for it, but passes unknown arguments on to ``placement_group``. Seen to work with Ray
    2.59.0 and 2.60.0.
    """
    return {"bundle_label_selector": [{NODE_ID: f"!in({node_ids})"}]} if node_ids else {}


def session_folder(folder: Path) -> dict[str, Any]:
    """Arguments for ``ray.init`` that put the session's files into ``folder``.

    Reason: the folder's name holds the driver's mark, so that the next driver can remove the folder of a killed one.
    The option begins with an underscore. Seen to work with Ray 2.59.0 and 2.60.0.
    """
    return {"_temp_dir": str(folder)}


def own_search_path() -> dict[str, Any]:
    """Arguments for ``ray.init`` that leave each worker the search path for modules with which it was started.

    Reason: Ray puts the driver's working directory, and the folder of its program, before all else into the search path
    of every worker, on every node, and has no setting against it. A ``working_dir`` would also change the workers'
    directory. Ray adds the folders just before it sends the job's configuration off with ``_serialize``. Seen to work
    with Ray 2.59.0 and 2.60.0.
    """
    from ray.job_config import JobConfig

    class WithoutFolders(JobConfig):
        def _serialize(self) -> str:
            self._py_driver_sys_path: list[str] = []
            return super()._serialize()

    return {"job_config": WithoutFolders()}


def kill_at_shutdown() -> None:
    """Makes ``ray.shutdown`` kill the processes of a local Ray at once.

    Reason: ``ray.shutdown`` sends SIGTERM to one process after the other and waits a second before it kills each. Seen
    to work with Ray 2.59.0 and 2.60.0.
    """
    from ray._private import worker

    if (node := worker._global_node) is not None:
        kill = node.kill_all_processes
        node.kill_all_processes = lambda **_: kill(check_alive=False, allow_graceful=False)


def dead_processes() -> list[str]:
    """The names of those :data:`ESSENTIAL` processes of the local Ray that have ended. Empty for a cluster.

    Reason: without its head Ray's calls hang for a minute. Ray then ends this process without an exception. Seen to
    work with Ray 2.59.0 and 2.60.0.
    """
    from ray._private import worker

    node = worker._global_node
    return [] if node is None else [name for name, _ in node.dead_processes() if name in ESSENTIAL]


def stop_pending(controller: Any) -> None:
    """Ends the trials of a Tune controller that have not begun.

    Reason: a scheduler has no public way to end a trial that still waits for room. Seen to work with Ray 2.59.0 and
    2.60.0.
    """
    from ray.tune.experiment import Trial

    for trial in [trial for trial in controller.get_trials() if trial.status == Trial.PENDING]:
        trial.init_local_path()  # Tune asks for each trial's folder at the end
        controller.stop_trial(trial)


def forget_ended(controller: Any, kept: int) -> None:
    """Removes ended trials from a Tune controller's memory, once there are ``kept`` of them.

    Reason: Tune keeps about 35 kB of each trial until its run ends, and has no setting for it. Its callback for
    progress messages, which nobody sees, remembers every trial too. The callback is removed, not replaced by one of
    ours: for a foreign callback Ray's usage statistics import MLflow. Seen to work with Ray 2.59.0 and 2.60.0.
    """
    from ray.tune.progress_reporter import TrialProgressCallback

    callbacks = controller._callbacks._callbacks
    callbacks[:] = [callback for callback in callbacks if not isinstance(callback, TrialProgressCallback)]
    ended = {trial for trial in controller._trials if trial.is_finished()}
    if len(ended) < kept:
        return
    controller._trials[:] = [trial for trial in controller._trials if trial not in ended]
    for trials in (
        controller._live_trials,
        controller._stopped_trials,
        controller._failed_trials,
        controller._trials_to_cache,
    ):
        trials.difference_update(ended)
    for trial in ended:
        controller._trial_metadata.pop(trial.trial_id, None)


@contextlib.contextmanager
def telling_errors(tell: Callable[[str, Exception | None], None]) -> Iterator[None]:
    """Within the context Tune calls ``tell`` with a trial's id and its error, before it tells its searcher of the end.

    Reason: Tune's searchers learn that there was an error, but not which. Tune itself writes the error into two files
    of its temporary folder, and where that disk is full, its whole run ends. Nothing of ours reads these files, so they
    are not written here. Seen to work with Ray 2.59.0 and 2.60.0.
    """
    from ray.tune.experiment import Trial

    def handle_error(trial: Any, exc: Exception | None = None) -> None:
        trial.run_metadata.num_failures += 1
        trial.run_metadata.invalidate_cache()
        tell(trial.trial_id, exc)

    before = Trial.handle_error
    Trial.handle_error = handle_error  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        Trial.handle_error = before  # type: ignore[method-assign]


MEMORY = re.compile(r"Memory on the node \(IP: ([^,)]+).*?\) was ([\d.]+)GB used / ([\d.]+)GB")
MEMORY_OF_WORKER = re.compile(r"Selected to kill: .*?actual memory used=([\d.]+)GB")
ADDRESS = re.compile(r"(?:\bip: |Node IP: )([^\s,]+)")


def why_it_died(error: Exception | None) -> tuple[str, bool]:
    """Why a trial's worker died, as far as Ray tells, in one line. And whether Ray ended it for lack of memory.

    Reason: Ray tells numbers, nodes and causes only in the text of its errors, which is not documented. What is not
    found in the text is left out. Seen to work with Ray 2.59.0 and 2.60.0.
    """
    from ray.exceptions import ActorUnavailableError, NodeDiedError, OutOfMemoryError

    text = str(error)
    where = found[1] if (found := ADDRESS.search(text)) else ""
    if isinstance(error, OutOfMemoryError):
        numbers, own = MEMORY.search(text), MEMORY_OF_WORKER.search(text)
        told = f" on node {numbers[1]}, which had {numbers[2]} of {numbers[3]} GB in use" if numbers else ""
        return f"out of memory{told}" + (f"; the worker had {own[1]} GB" if own else ""), True
    if isinstance(error, NodeDiedError) or "node has died" in text or "node it was running on is dead" in text:
        return "its node is gone" + (f" ({where})" if where else ""), False
    if isinstance(error, ActorUnavailableError):
        return "its node is gone or does not answer", False
    if "Worker exit type: SYSTEM_ERROR" in text:
        there = f" on node {where}" if where else ""
        return f"it was killed or crashed{there}; the kernel's log (dmesg) tells if memory ran out", False
    return " ".join(text.split())[:300] if error is not None else "Ray does not say why", False


@dataclass(frozen=True)
class _StandIn:
    """Stands for a trial of Tune's. It has the only attribute that Tune's schedulers read."""

    trial_id: str


def add_to_scheduler(scheduler: Any, trial_id: str) -> None:
    """Adds a trial to one of Tune's schedulers, outside Tune. See :func:`stops`."""
    scheduler.on_trial_add(None, _StandIn(trial_id))


def stops(scheduler: Any, trial_id: str, result: Mapping[str, Any]) -> bool:
    """Whether one of Tune's schedulers stops a trial after this result.

    Reason: the scheduler is rebuilt from the store, so Tune's controller and trials do not exist. ASHA and median
    stopping do not read the controller, which is None here, and read only a trial's id. This is not documented. Seen to
    work with Ray 2.59.0 and 2.60.0.
    """
    from ray.tune.schedulers import TrialScheduler

    decision = scheduler.on_trial_result(None, _StandIn(trial_id), dict(result))
    return bool(decision != TrialScheduler.CONTINUE)


def _missing() -> Iterator[str]:
    """The parts of :data:`NEEDED` that the installed Ray lacks."""
    for path, names in NEEDED.items():
        try:
            there = _names(pkgutil.resolve_name(path))
        except (ImportError, AttributeError):
            yield path
        else:
            yield from (f"{path} with {name}" for name in names if name not in there)


def _names(thing: Any) -> set[str]:
    """The names in a function's code, or the fields of a protobuf message. Empty for anything else."""
    if fields := getattr(getattr(thing, "DESCRIPTOR", None), "fields_by_name", None):
        return set(fields)
    code = getattr(inspect.unwrap(thing), "__code__", None) if callable(thing) else None
    return set() if code is None else {*code.co_names, *code.co_varnames, *map(str, code.co_consts)}


if missing := list(_missing()):
    raise unsuitable("ray", VERSIONS, missing)
