"""Where trials run: what a trial asks of a node, how many trials fit into the cluster now, and which nodes get none.

A trial runs on one node, so everything is counted node by node. Ray decides which trial runs on which node.
"""

from __future__ import annotations

import importlib.metadata
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.errors import UserError
from orchestrator.sweep.file import Resources, is_custom
from orchestrator.trial import code
from trainers.parts import nearest

Demand = tuple[tuple[str, float], ...]
"""What one trial takes of its node, under Ray's names: ``(("CPU", 1.0), ("GPU", 0.25))``."""

COMPARED = ("torch", "torchvision", "numpy", "torch-fidelity", "POT", "scikit-learn")
"""The packages that results depend on. Ray itself compares Python's and Ray's versions when a node joins."""

LOOK_SECONDS = 2.0
"""How old the list of nodes may be, in seconds."""

HEAD_SECONDS = 5.0
"""How long the head may take to answer, in seconds."""

ANSWER_SECONDS = 120.0
"""How long a node may take to answer, in seconds: a worker process starts there, and our code is unpacked."""


@dataclass(frozen=True)
class Node:
    """A node that is alive: Ray's id of it, a name for people, and its resources."""

    node_id: str
    name: str
    resources: Mapping[str, float]

    def fits(self, demand: Demand) -> int:
        """How many trials with this demand the node can run at once. A fraction of a GPU comes from a single GPU."""
        counts = []
        for name, wanted in demand:
            there = self.resources.get(name, 0.0)
            share = name == "GPU" and wanted < 1
            counts.append(int(there) * int(1 / wanted + 1e-9) if share else int(there / wanted + 1e-9))
        return min(counts)


@dataclass(frozen=True)
class Assignment:
    """A trial that begins now.

    ``kind`` is the index of its demand in ``Placement.kinds``, ``avoid`` are the ids of nodes that it must not run on,
    and ``gpus`` is the number of GPUs, or the fraction of one, that it may use.
    """

    trial_id: str
    kind: int
    avoid: tuple[str, ...]
    gpus: float


def demand_of(resources: Resources, device: str) -> Demand:
    """What a trial asks for. A trial whose device is cpu asks for no GPU."""
    gpus = 0.0 if device == "cpu" else resources.gpus
    wanted = {"CPU": resources.cpus, "GPU": gpus, **resources.custom}
    return tuple((name, float(number)) for name, number in wanted.items() if number)


def bundle_of(kind: int, avoid: str, kinds: Sequence[Demand]) -> Any:
    """Tune's placement group for a trial. ``avoid`` holds node ids, separated by commas."""
    from ray.tune import PlacementGroupFactory

    from orchestrator.engine.ray_private import avoiding

    return PlacementGroupFactory([dict(kinds[kind])], "PACK", **avoiding(avoid))


def alive_nodes() -> list[Node] | None:
    """The nodes of the cluster that this process has joined. None while its head does not answer."""
    from ray.exceptions import RayError

    from orchestrator.engine import ray_private

    try:
        return [Node(*each) for each in ray_private.alive_nodes(HEAD_SECONDS)]
    except RayError:
        return None


def share_out(nodes: Sequence[Node], wanted: Mapping[Demand, int]) -> dict[Demand, int]:
    """How many trials of each kind may run at once, so that all of them fit together."""
    return {demand: sum(shares.values()) for demand, shares in shares_by_node(nodes, wanted).items()}


def shares_by_node(nodes: Sequence[Node], wanted: Mapping[Demand, int]) -> dict[Demand, dict[str, int]]:
    """How many trials of each kind each node may run at once, by node id, so that all of them fit together.

    Room goes first to the kinds that the fewest nodes can run, then to those that ask for more kinds of resources. So
    trials without a GPU do not take the processors beside a GPU, which would leave it idle. Trials without a GPU are
    put on nodes without GPUs first.
    """
    left = {node.node_id: dict(node.resources) for node in nodes}
    shares: dict[Demand, dict[str, int]] = {}
    for demand in sorted(wanted, key=lambda each: (sum(bool(node.fits(each)) for node in nodes), -len(each), each)):
        missing = wanted[demand]
        shares[demand] = {}
        for node in sorted(nodes, key=lambda each: not _needs_gpu(demand) and each.resources.get("GPU", 0.0)):
            remaining = left[node.node_id]
            number = min(missing, Node(node.node_id, node.name, remaining).fits(demand))
            missing -= number
            shares[demand][node.node_id] = number
            for name, each in demand:
                remaining[name] = remaining.get(name, 0.0) - number * each
    return shares


def _needs_gpu(demand: Demand) -> bool:
    return any(name == "GPU" for name, _ in demand)


def unservable(nodes: Sequence[Node], demand: Demand) -> str | None:
    """The reason why none of these nodes can ever run a trial with this demand. None if a node can."""
    if any(node.fits(demand) for node in nodes):
        return None
    for name, wanted in demand:
        most = max((node.resources.get(name, 0.0) for node in nodes), default=0.0)
        if wanted <= most:
            continue
        if name in ("CPU", "GPU"):
            total = sum(node.resources.get(name, 0.0) for node in nodes)
            return (
                f"resources.{name.lower()}s: a trial asks for {wanted:g} {name}s and no node has more than {most:g}"
                + (f" ({len(nodes)} nodes have {total:g} together, but a trial runs on one)" if total > most else "")
                + ("; to run without a GPU, set device=cpu or leave gpus out" if name == "GPU" else "")
            )
        if most:
            return f"resources.custom.{name}: a trial asks for {wanted:g} and no node has more than {most:g}"
        known = sorted({other for node in nodes for other in node.resources if is_custom(other)})
        there = nearest(name, known) if known else ""
        return (
            f"resources.custom.{name}: no node offers this resource{there}; a node that offers it is started with: "
            f"ray start --resources='{{\"{name}\": 1}}'"
        )
    asked = ", ".join(f"{wanted:g} {name}" for name, wanted in demand)
    return f"resources: a trial asks for {asked}, and no single node has all of that"


def compared_versions() -> dict[str, str]:
    """The versions here of the packages that must be the same on every node, without the build (``+cu128``)."""
    found = {}
    for name in COMPARED:
        try:
            found[name] = importlib.metadata.version(name).partition("+")[0]
        except importlib.metadata.PackageNotFoundError:
            found[name] = "missing"
    return found


def difference(theirs: Mapping[str, str], ours: Mapping[str, str]) -> str | None:
    """The versions that differ between a node and the driver, as text. None if all are the same."""
    told = [f"{name} {theirs[name]} there and {ours[name]} here" for name in ours if theirs[name] != ours[name]]
    return f"has {', '.join(told)}" if told else None


def what_we_run() -> dict[str, Any]:
    """What this process runs, for :func:`why_not_here` in another one: our code, and the versions of packages."""
    return {"code": code.this_code(), "versions": compared_versions()}


def why_not_here(theirs: Mapping[str, Any], *, same_files: bool = False) -> str | None:
    """The reason why this process must not run a driver's trials: other code or versions than ``theirs``, the driver's.

    None if both are the same. With ``same_files`` the code must also lie in the same folders.
    """
    return code.difference(theirs["code"], same_files=same_files) or difference(compared_versions(), theirs["versions"])


def check_nodes(nodes: Sequence[Node]) -> None:
    """Asks every node what it runs. Raises :class:`UserError` that names nodes with other versions or other code."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    task, ours = ray.remote(num_cpus=0, max_retries=0)(why_not_here), ray.put(what_we_run())

    def ask(node_id: str) -> Any:
        there = NodeAffinitySchedulingStrategy(node_id, soft=False)
        return task.options(scheduling_strategy=there).remote(ours)  # type: ignore[arg-type] # Ray's types lack a dict

    asked = {ask(node.node_id): node.name for node in nodes}
    answered, silent = ray.wait(list(asked), num_returns=len(asked), timeout=ANSWER_SECONDS)
    problems = [f"node {asked[answer]} did not answer within {ANSWER_SECONDS:g} s" for answer in silent]
    for answer in answered:
        try:
            if why := ray.get(answer):
                problems.append(f"node {asked[answer]} {why}")
        except ray.exceptions.RayError as error:  # the node has just left, or cannot run our code
            problems.append(f"node {asked[answer]} cannot run our code: {str(error).strip().splitlines()[-1]}")
    if problems:
        raise UserError(
            f"{'; '.join(sorted(problems))}. Results of different versions or of different code cannot be compared: "
            "install the same versions on every node, remove other copies of this program there, or end Ray on the "
            "nodes that differ"
        )


class Placement:
    """Decides how many trials of each kind Ray may hold, from the nodes that are alive now, and which nodes get none.

    ``demands`` holds the demand of every trial to run, ``further`` those of trials that may be added. ``limit`` is the
    largest number of trials at once (None: as many as fit). With ``beyond`` only the limit counts, if there is one:
    trials that do not fit wait in Ray, and they make a cluster that grows on demand grow.
    """

    def __init__(
        self,
        demands: Mapping[str, Demand],
        limit: int | None = None,
        *,
        further: Collection[Demand] = (),
        beyond: bool = False,
        tell: Callable[[str], None] = lambda text: None,
        look: Callable[[], list[Node] | None] = alive_nodes,
    ) -> None:
        self.kinds = sorted({*demands.values(), *further})
        self._demands = dict(demands)
        self._running: Counter[Demand] = Counter()
        self._off_gpus: set[str] = set()
        """The running trials that were kept off nodes with GPUs."""
        self._unfinished = Counter(demands.values())
        self._limit = limit
        self._beyond = beyond and limit is not None
        self._tell = tell
        self._look = look
        self._nodes: list[Node] = []
        self._looked = float("-inf")
        self._refused: dict[str, str] = {}
        """Why nodes were refused, by their ids."""

    def nodes(self) -> list[Node]:
        """The nodes that are alive and not refused, looked up every :data:`LOOK_SECONDS`.

        While the head does not answer, these are the nodes known before.
        """
        now = time.monotonic()
        if now - self._looked >= LOOK_SECONDS:
            found = self._look()
            self._nodes = self._nodes if found is None else found
            self._looked = time.monotonic()
        return self._usable()

    def _usable(self) -> list[Node]:
        return [node for node in self._nodes if node.node_id not in self._refused]

    def serving(self) -> list[Node]:
        """The nodes that can run at least one of the trials."""
        return [node for node in self.nodes() if any(node.fits(kind) for kind in self.kinds)]

    def check(self) -> None:
        """Raises :class:`UserError` for a demand that no node can ever serve.

        With ``beyond`` such a node may still join, so the user is only told.
        """
        for kind in self.kinds:
            if why := unservable(self.nodes(), kind):
                if not self._beyond:
                    raise UserError(why)
                self._tell(f"{why}; such trials wait for a node that can run them")

    def at_once(self) -> int:
        """How many of the unfinished trials can run at once on the nodes that were seen last. At least one."""
        fit = self._limit if self._beyond else sum(share_out(self._usable(), self._unfinished).values())
        return max(1, min(number for number in (fit, self._limit) if number is not None))

    def may_begin(self) -> set[Demand]:
        """The kinds of which another trial may be handed to Ray, in addition to the running ones."""
        if self._limit is not None and self._running.total() >= self._limit:
            return set()
        if self._beyond:
            return set(self.kinds)
        shares = share_out(self.nodes(), self._unfinished)
        return {kind for kind, number in shares.items() if self._running[kind] < number}

    def kind(self, trial_id: str) -> Demand:
        """What a trial asks for."""
        return self._demands[trial_id]

    def add(self, trial_id: str, demand: Demand) -> None:
        """Adds a trial by which the plan has grown. A placement that knows no nodes asks nothing of them."""
        self._demands[trial_id] = demand if demand in self.kinds else ()
        self._unfinished[self._demands[trial_id]] += 1

    def begin(self, trial_id: str) -> Assignment:
        """Counts a trial as running."""
        kind = self._demands[trial_id]
        avoid = (*self._refused, *self._left_to_others(trial_id))
        self._running[kind] += 1
        return Assignment(trial_id, self.kinds.index(kind), avoid, dict(kind).get("GPU", 0.0))

    def _left_to_others(self, trial_id: str) -> list[str]:
        """The ids of nodes that a trial must leave to other trials.

        Without this, Ray may put a trial that needs no GPU on a node whose GPU another trial waits for.
        """
        kind = self._demands[trial_id]
        fitting = [node for node in self._usable() if node.fits(kind)]
        with_gpus = [node.node_id for node in fitting if node.resources.get("GPU")]
        others = [node.node_id for node in fitting if node.node_id not in with_gpus]
        if _needs_gpu(kind) or not with_gpus or not others:
            return []
        shares = shares_by_node(self._usable(), self._unfinished)[kind]
        there = sum(self._demands[other] == kind for other in self._off_gpus)
        if there < sum(shares[node_id] for node_id in others):
            self._off_gpus.add(trial_id)
            return with_gpus
        return [] if self._beyond else others

    def end(self, trial_id: str, *, finished: bool) -> None:
        """Counts a trial as no longer running, and as finished if it will not run again."""
        self._off_gpus.discard(trial_id)
        self._running[self._demands[trial_id]] -= 1
        self._unfinished[self._demands[trial_id]] -= finished

    def refuse(self, node_id: str, why: str) -> None:
        """Gives a node with other versions or other code no more trials. The user is told once."""
        if node_id not in self._refused:
            name = next((node.name for node in self._nodes if node.node_id == node_id), node_id)
            self._refused[node_id] = f"node {name} {why}"
            self._tell(f"node {name} gets no trials: it {why}")

    def deserted(self) -> str | None:
        """The reason why none of the unfinished trials can begin: the nodes that could run them were refused.

        None if a node is left, or if none was refused.
        """
        left = [kind for kind, number in self._unfinished.items() if number]
        if not self._refused or any(node.fits(kind) for node in self.nodes() for kind in left):
            return None
        return f"no node is left to begin trials on: {'; '.join(self._refused.values())}"


def anywhere(trial_ids: Sequence[str], at_once: int | None = None) -> Placement:
    """A placement that knows no nodes and lets all trials run at once, or at most ``at_once`` of them."""
    return Placement(
        dict.fromkeys(trial_ids, ()), at_once or max(1, len(trial_ids)), beyond=True, look=list, further=[()]
    )


def make_placement(
    demands: Mapping[str, Demand],
    address: str | None,
    limit: int | None,
    tell: Callable[[str], None],
    further: Collection[Demand] = (),
) -> Placement:
    """The placement of these trials on the Ray that this process has joined: a local one, or the one at ``address``.

    ``further`` are the demands of trials that may be added to the plan.

    Raises :class:`UserError` for a demand that no node can serve, and for nodes of a cluster with other versions or
    other code.
    """
    placement = Placement(demands, limit, further=further, beyond=address is not None, tell=tell)
    placement.check()
    if address is not None:
        check_nodes(placement.serving())
    return placement
