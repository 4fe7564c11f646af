"""Where trials run: counted node by node, by pure functions; then on a real cluster that a node with other versions,
a node that joins and a node that is killed come to while it runs."""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from command_line import started, wait_until
from hand_made import write_file
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.errors import UserError
from orchestrator.placement import Node, Placement, Request, bundle_of, difference, request_of, share_out, unservable
from orchestrator.store import State, SweepStore, TrialStore
from orchestrator.sweep_file import Resources

CPU: Request = (("CPU", 1.0),)
GPU: Request = (("CPU", 1.0), ("GPU", 1.0))
QUARTER: Request = (("CPU", 1.0), ("GPU", 0.25))


def node(name: str, **resources: float) -> Node:
    return Node(f"id-{name}", name, resources)


@pytest.mark.parametrize(
    ("request_", "resources", "number"),
    [
        pytest.param(CPU, {"CPU": 2}, 2, id="by CPUs"),
        pytest.param((("CPU", 0.5),), {"CPU": 2}, 4, id="parts of a CPU"),
        pytest.param((("CPU", 0.1),), {"CPU": 1}, 10, id="tenths"),
        pytest.param((("CPU", 3.0),), {"CPU": 8}, 2, id="what does not divide"),
        pytest.param(QUARTER, {"CPU": 16, "GPU": 2}, 8, id="quarters of a GPU"),
        pytest.param((("CPU", 1.0), ("GPU", 0.4)), {"CPU": 16, "GPU": 2}, 4, id="two on each GPU, none on both"),
        pytest.param(GPU, {"CPU": 16}, 0, id="no GPU"),
        pytest.param((("CPU", 1.0), ("big", 1.0)), {"CPU": 16, "big": 3}, 3, id="a resource of one's own"),
    ],
)
def test_as_many_trials_as_fit_on_a_node(request_: Request, resources: dict[str, float], number: int) -> None:
    assert node("a", **resources).fits(request_) == number


def test_a_trial_whose_device_is_cpu_asks_for_no_gpu() -> None:
    resources = Resources(1, 0.25, {"big": 1})
    assert request_of(resources, "cpu") == (("CPU", 1.0), ("big", 1.0))
    assert request_of(resources, "auto") == (("CPU", 1.0), ("GPU", 0.25), ("big", 1.0))
    assert request_of(Resources(), "auto") == CPU


def test_trials_without_a_gpu_leave_the_processors_beside_gpus_to_those_with_one() -> None:
    nodes = [node("gpu", CPU=2, GPU=2), node("cpu", CPU=4)]
    assert share_out(nodes, Counter({CPU: 100, GPU: 100})) == {GPU: 2, CPU: 4}
    assert share_out(nodes, Counter({CPU: 100, GPU: 1})) == {GPU: 1, CPU: 5}
    assert share_out(nodes, Counter({CPU: 100})) == {CPU: 6}
    assert share_out(nodes, Counter({CPU: 3, GPU: 100})) == {GPU: 2, CPU: 3}


@given(
    st.lists(st.tuples(st.integers(0, 8), st.integers(0, 4), st.integers(0, 2)), max_size=5),
    st.dictionaries(
        st.sampled_from([CPU, GPU, QUARTER, (("CPU", 2.0),), (("CPU", 1.0), ("big", 1.0))]), st.integers(0, 30)
    ),
)
def test_what_is_shared_out_is_wanted_and_there(sizes: list[tuple[int, int, int]], wanted: dict[Request, int]) -> None:
    nodes = [node(str(number), CPU=c, GPU=g, big=b) for number, (c, g, b) in enumerate(sizes)]
    shares = share_out(nodes, wanted)
    assert shares.keys() == wanted.keys()
    assert all(0 <= shares[kind] <= wanted[kind] for kind in wanted)
    for name in ("CPU", "GPU", "big"):
        taken = sum(shares[kind] * dict(kind).get(name, 0.0) for kind in wanted)
        assert taken <= sum(each.resources[name] for each in nodes)
    if nodes and sum(wanted.values()):
        runs = any(number and each.fits(kind) for kind, number in wanted.items() for each in nodes)
        assert (sum(shares.values()) > 0) == runs


@pytest.mark.parametrize(
    ("request_", "told"),
    [
        pytest.param(
            (("CPU", 2.0),), r"resources\.cpus: .*2 CPUs and no node has more than 1 \(2 on 2", id="CPUs"
        ),
        pytest.param(GPU, r"resources\.gpus: .*1 GPUs and no node has more than 0; .*device=cpu", id="GPUs"),
        pytest.param((("CPU", 1.0), ("big_memry", 1.0)), r"custom\.big_memry: .*'big_memory'.*ray start", id="name"),
        pytest.param(
            (("CPU", 1.0), ("big_memory", 4.0)), r"custom\.big_memory: .*4 and no node has more than 1", id="4"
        ),
        pytest.param((("fast_disk", 1.0), ("big_memory", 1.0)), "no single node has together", id="together"),
    ],
)
def test_what_no_single_node_can_serve_is_refused(request_: Request, told: str) -> None:
    nodes = [node("a", CPU=1, big_memory=1), node("b", CPU=1, fast_disk=1)]
    with pytest.raises(UserError, match=told):
        Placement({"trial": request_}, look=lambda: nodes).check()
    assert unservable(nodes, CPU) is None


def test_what_may_come_later_is_told_and_waited_for() -> None:
    told: list[str] = []
    placement = Placement({"trial": GPU}, 3, beyond=True, tell=told.append, look=lambda: [node("a", CPU=1)])
    placement.check()
    assert ["wait for a node" in line for line in told] == [True]
    assert placement.may_begin() == {GPU}
    assert placement.at_once() == 3


def test_a_limit_counts_besides_what_fits() -> None:
    requests = dict.fromkeys("abcd", CPU)
    look = lambda: [node("a", CPU=2)]  # noqa: E731
    assert [Placement(requests, limit, look=look).at_once() for limit in (None, 1, 30)] == [2, 1, 2]
    placement = Placement(requests, 1, look=look)
    placement.begin("a")
    assert placement.may_begin() == set()
    placement.end("a", finished=True)
    assert placement.may_begin() == {CPU}


def test_nodes_that_come_and_go_count_as_soon_as_they_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.placement.LOOK_SECONDS", 0.0)
    nodes = [node("a", CPU=1)]
    placement = Placement(dict.fromkeys("abc", CPU), look=lambda: nodes)
    placement.begin("a")
    assert placement.may_begin() == set()
    nodes.append(node("b", CPU=1))
    assert (placement.may_begin(), placement.at_once()) == ({CPU}, 2)
    placement.begin("b")
    del nodes[0]
    assert placement.may_begin() == set()
    placement.end("b", finished=False)
    assert placement.may_begin() == set()  # "a" still runs, as far as anybody knows
    placement.end("a", finished=False)
    assert placement.may_begin() == {CPU}


def test_a_refused_node_counts_no_more_and_is_told_once() -> None:
    told: list[str] = []
    nodes = [node("a", CPU=1), node("b", CPU=1)]
    placement = Placement(dict.fromkeys("abc", CPU), tell=told.append, look=lambda: nodes)
    assert placement.at_once() == 2
    assert bundle_of(placement.begin("a"), placement.kinds).bundles == [{"CPU": 1.0}]
    for _ in range(2):
        placement.refuse("id-b", "torch 9 there and 2 here")
    assert told == ["node b gets no trials: it has torch 9 there and 2 here"]
    assert placement.at_once() == 1
    bundle = bundle_of(placement.begin("b"), placement.kinds)
    assert bundle._bound.kwargs["bundle_label_selector"] == [{"ray.io/node-id": "!in(id-b)"}]


def test_versions_differ_by_package_and_not_by_build() -> None:
    ours = {"torch": "2.15.0", "numpy": "2.4.1"}
    assert difference(ours, ours) is None
    told = difference({"torch": "2.14.1", "numpy": "missing"}, ours)
    assert told == "torch 2.14.1 there and 2.15.0 here, numpy missing there and 2.4.1 here"


# Three trials of some seconds, all beginning with epochs of 20 critic iterations and a checkpoint after each.
SWEEP = """\
name: nodes
base: [dataset=digits, evaluation=none, "network.generator_widths=[16]", "network.critic_widths=[16]", device=cpu]
grid: {critic.lr: [1e-3, 2e-3, 3e-3]}
retries: 1
"""
OPTIONS = ["budget=1600", "checkpoint_epochs=1"]


@dataclass
class Nodes:
    """The sweep, what it said, and the process ids of the raylets, by the name of their node."""

    cluster: Any
    environment: dict[str, str]
    folder: Path
    store: SweepStore
    raylets: dict[int, str]
    code: int = -1
    out: str = ""
    errors: str = ""

    def add(self, name: str, **arguments: Any) -> Any:
        """Starts a node, a real raylet."""
        added = self.cluster.add_node(**arguments)
        self.raylets[added.all_processes["raylet"][0].process.pid] = name
        return added

    def node_of(self, attempt: Mapping[str, Any]) -> str:
        """Where an attempt runs; its worker is alive. Nobody waits for it: "?" if it has just ended."""
        with contextlib.suppress(OSError):
            stat = Path(f"/proc/{attempt['pid']}/stat").read_text()
            return self.raylets.get(int(stat.rpartition(")")[2].split()[1]), "?")
        return "?"

    def running(self) -> dict[str, TrialStore]:
        """The trials that run, by the name of the node."""
        found = {}
        for entry in self.store.entries():
            trial = self.store.trial(entry.trial_id)
            status = trial.status()
            if status.state is State.RUNNING:
                found[self.node_of(status.attempts[-1])] = trial
        return found


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    """A sweep that begins on one node. One with another torch joins, then a sound one, which is killed."""
    from ray.cluster_utils import Cluster

    folder = tmp_path_factory.mktemp("nodes")
    other = folder / "other" / "torch-9.9.9.dist-info"
    write_file(other, "Metadata-Version: 2.1\nName: torch\nVersion: 9.9.9\n", "METADATA")
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": os.environ["RAY_AUTH_TOKEN"]}
    text = write_file(folder, SWEEP)
    # no trial runs on the head, and nothing but what travels with the job is in the workers' path
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        there = Nodes(cluster, token, folder, SweepStore(folder / "runs", "nodes"), {})
        there.add("first", num_cpus=1)
        arguments = ["sweep", text, *OPTIONS, "--offline", "--address", cluster.address]
        with started(*arguments, cwd=folder, **token) as command:
            wait_until(lambda: (there.store.path / "plan.json").exists() and "first" in there.running(), 120)
            there.add("other", num_cpus=1, env_vars={"PYTHONPATH": str(other.parent)})
            wait_until(lambda: (there.store.path / "refused").exists(), 30, may_fail=True)
            joining = there.add("joining", num_cpus=1)
            wait_until(lambda: "joining" in there.running(), 120)
            trial = there.running()["joining"]
            wait_until(trial.previous_checkpoint_file.exists, 120)
            cluster.remove_node(joining, allow_graceful=False)
            there.code, there.out, there.errors = command.end()
        yield there
    finally:
        cluster.shutdown()
