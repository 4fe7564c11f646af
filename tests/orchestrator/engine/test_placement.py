"""Where trials run.

First pure functions that count node by node. Then a real cluster, which a node with other versions and later a good
node join while a sweep runs.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from command_line import orchestrator, started, wait_until
from hand_made import write_file
from hypothesis import given, settings
from hypothesis import strategies as st
from traps import Traps, copy_packages, imports_first

from orchestrator.engine.placement import (
    Assignment,
    Demand,
    Node,
    Placement,
    bundle_of,
    compared_versions,
    demand_of,
    difference,
    share_out,
    unservable,
)
from orchestrator.errors import UserError
from orchestrator.store.states import State
from orchestrator.store.sweep import SweepStore
from orchestrator.store.trial import TrialStore
from orchestrator.sweep.file import Resources
from orchestrator.trial.surroundings import git_commit

CPU: Demand = (("CPU", 1.0),)
GPU: Demand = (("CPU", 1.0), ("GPU", 1.0))
QUARTER: Demand = (("CPU", 1.0), ("GPU", 0.25))


def node(name: str, **resources: float) -> Node:
    return Node(f"id-{name}", name, resources)


def _bundle(assignment: Assignment, placement: Placement) -> Any:
    return bundle_of(assignment.kind, ",".join(assignment.avoid), placement.kinds)


@pytest.mark.parametrize(
    ("demand_", "resources", "number"),
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
def test_as_many_trials_as_fit_on_a_node(demand_: Demand, resources: dict[str, float], number: int) -> None:
    assert node("a", **resources).fits(demand_) == number


def test_a_trial_whose_device_is_cpu_asks_for_no_gpu() -> None:
    resources = Resources(1, 0.25, {"big": 1})
    assert demand_of(resources, "cpu") == (("CPU", 1.0), ("big", 1.0))
    assert demand_of(resources, "auto") == (("CPU", 1.0), ("GPU", 0.25), ("big", 1.0))
    assert demand_of(Resources(), "auto") == CPU


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
@settings(deadline=None)
def test_shares_exceed_neither_the_demand_nor_the_nodes(
    sizes: list[tuple[int, int, int]], wanted: dict[Demand, int]
) -> None:
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
    ("demand_", "told"),
    [
        pytest.param(
            (("CPU", 2.0),),
            r"resources\.cpus: .*2 CPUs and no node has more than 1 \(2 nodes have 2 together",
            id="CPUs",
        ),
        pytest.param(GPU, r"resources\.gpus: .*1 GPUs and no node has more than 0; .*device=cpu", id="GPUs"),
        pytest.param((("CPU", 1.0), ("big_memry", 1.0)), r"custom\.big_memry: .*'big_memory'.*ray start", id="name"),
        pytest.param(
            (("CPU", 1.0), ("big_memory", 4.0)), r"custom\.big_memory: .*4 and no node has more than 1", id="4"
        ),
        pytest.param((("fast_disk", 1.0), ("big_memory", 1.0)), "no single node has all of that", id="together"),
    ],
)
def test_a_demand_that_no_single_node_can_serve_is_refused(demand_: Demand, told: str) -> None:
    nodes = [node("a", CPU=1, big_memory=1), node("b", CPU=1, fast_disk=1)]
    with pytest.raises(UserError, match=told):
        Placement({"trial": demand_}, look=lambda: nodes).check()
    assert unservable(nodes, CPU) is None


def test_a_demand_that_a_later_node_may_serve_waits_with_a_message() -> None:
    told: list[str] = []
    placement = Placement({"trial": GPU}, 3, beyond=True, tell=told.append, look=lambda: [node("a", CPU=1)])
    placement.check()
    assert ["wait for a node" in line for line in told] == [True]
    assert placement.may_begin() == {GPU}
    assert placement.at_once() == 3


def test_a_limit_counts_besides_what_fits() -> None:
    demands = dict.fromkeys("abcd", CPU)
    look = lambda: [node("a", CPU=2)]  # noqa: E731
    for limit, at_once in ((None, 2), (1, 1), (30, 2)):
        placement = Placement(demands, limit, look=look)
        placement.check()
        assert placement.at_once() == at_once
    placement = Placement(demands, 1, look=look)
    placement.begin("a")
    assert placement.may_begin() == set()
    placement.end("a", finished=True)
    assert placement.may_begin() == {CPU}


def test_nodes_that_come_and_go_count_as_soon_as_they_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.engine.placement.LOOK_SECONDS", 0.0)
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


def test_a_refused_node_no_longer_counts_and_is_reported_once() -> None:
    told: list[str] = []
    nodes = [node("a", CPU=1), node("b", CPU=1)]
    placement = Placement(dict.fromkeys("abc", CPU), tell=told.append, look=lambda: nodes)
    placement.check()
    assert placement.at_once() == 2
    assert _bundle(placement.begin("a"), placement).bundles == [{"CPU": 1.0}]
    for _ in range(2):
        placement.refuse("id-b", "has torch 9 there and 2 here")
    assert told == ["node b gets no trials: it has torch 9 there and 2 here"]
    assert placement.at_once() == 1
    bundle = _bundle(placement.begin("b"), placement)
    assert bundle._bound.kwargs["bundle_label_selector"] == [{"ray.io/node-id": "!in(id-b)"}]


def test_trials_without_a_gpu_are_kept_off_gpus_that_others_want() -> None:
    nodes = [node("gpu", CPU=2, GPU=1), node("cpu", CPU=1), node("head", CPU=0)]
    placement = Placement({"a": CPU, "b": CPU, "c": CPU, "d": GPU}, look=lambda: nodes)
    placement.check()
    avoided = [placement.begin(trial_id).avoid for trial_id in "abd"]
    assert avoided == [("id-gpu",), ("id-cpu",), ()]  # of the two processors beside the GPU one is to spare
    assert placement.may_begin() == set()
    placement.end("a", finished=True)
    assert placement.begin("c").avoid == ("id-gpu",)


def test_trials_without_a_gpu_run_wherever_there_are_only_nodes_of_one_sort() -> None:
    for resources in ({"CPU": 2, "GPU": 1}, {"CPU": 2}):
        placement = Placement({"a": CPU}, look=lambda resources=resources: [node("a", **resources)])
        placement.check()
        assert placement.begin("a").avoid == ()


def test_versions_differ_by_package_and_not_by_build() -> None:
    ours = {"torch": "2.15.0", "numpy": "2.4.1"}
    assert difference(ours, ours) is None
    told = difference({"torch": "2.14.1", "numpy": "missing"}, ours)
    assert told == "has torch 2.14.1 there and 2.15.0 here, numpy missing there and 2.4.1 here"


SWEEP = """\
name: nodes
base: [dataset=digits, evaluation=none, "network.generator_widths=[16]", "network.critic_widths=[16]", budget=300]
variants:
  small: {base: [device=cpu]}
  large: {base: [critic.lr=3e-3]}
resources: {cpus: 1, gpus: 1}
"""
STALE = "raise ImportError('the code of this node is not what came with the sweep')\n"


@dataclass
class Nodes:
    """A sweep on a real cluster, and the process ids of the raylets with the names that the tests give the nodes."""

    cluster: Any
    command: list[object]
    environment: dict[str, str]
    store: SweepStore
    traps: Traps
    raylets: dict[int, str] = field(default_factory=dict)
    seen: dict[str, str] = field(default_factory=dict)
    code: int = -1
    out: str = ""

    def add(self, name: str, **arguments: Any) -> None:
        """Starts a node with one processor: a raylet, and workers below it."""
        added = self.cluster.add_node(num_cpus=1, **arguments)
        self.raylets[added.all_processes["raylet"][0].process.pid] = name

    def worker_on(self, name: str) -> int | None:
        """The process id of the worker that runs a trial on a node. ``seen`` records where each trial was seen."""
        for trial in self.trials():
            status = trial.status()
            if status.state is State.RUNNING:
                pid = status.attempts[-1].pid
                with contextlib.suppress(OSError):  # it has just ended
                    stat = Path(f"/proc/{pid}/stat").read_text()
                    self.seen[trial.trial_id] = self.raylets[int(stat.rpartition(")")[2].split()[1])]
                    if self.seen[trial.trial_id] == name:
                        return pid
        return None

    @contextlib.contextmanager
    def held(self, name: str) -> Iterator[None]:
        """Suspends the trial that runs on a node, for the length of the context."""
        pid = self.worker_on(name)
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        yield
        os.kill(pid, signal.SIGCONT)

    def trials(self, variant: str = "") -> list[TrialStore]:
        """The trials of a variant, or all."""
        entries = [entry for entry in self.store.entries() if variant in ("", entry.variant)]
        return [self.store.trial(entry.trial_id) for entry in entries]


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    """A sweep that begins on a node with a GPU, which is only said to be there. A node with another torch joins, then
    a sound one. In the command's directory lies a module for every name that a library might import.

    The worker on the first node is held (SIGSTOP), so that its trial is there as long as the others come.
    """
    from ray.cluster_utils import Cluster

    traps = Traps(tmp_path_factory.mktemp("nodes"))
    folder = traps.folder
    paths = {"stale": folder / "stale", "other": folder / "other"}
    for package in ("orchestrator", "trainers"):
        write_file(paths["stale"] / package, STALE, "__init__.py")
    metadata = "Metadata-Version: 2.1\nName: torch\nVersion: 9.9.9\n"
    write_file(paths["other"] / "torch-9.9.9.dist-info", metadata, "METADATA")
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": os.environ["RAY_AUTH_TOKEN"]}
    temporary = tempfile.mkdtemp(prefix="ray-", dir="/tmp")
    head = {"num_cpus": 0, "include_dashboard": False, "include_log_monitor": False, "temp_dir": temporary}
    Path("/tmp/ray").mkdir(exist_ok=True)  # Ray's Cluster writes its address there, wherever its own files are
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        text = write_file(folder, SWEEP)
        command = ["sweep", text, "--name", "nodes", "--offline", "--address", cluster.address]
        there = Nodes(cluster, command, token, SweepStore(folder / "runs", "nodes"), traps)
        there.add("gpu", num_gpus=1, env_vars={"PYTHONPATH": str(paths["stale"])})
        with started(*there.command, cwd=folder, **token) as running:
            assert running.process.stdout is not None
            wait_until(lambda: (there.store.path / "plan.json").exists() or running.process.poll() is not None)
            wait_until(lambda: there.worker_on("gpu"), pause=0.05)
            with there.held("gpu"):
                there.add("other", env_vars={"PYTHONPATH": str(paths["other"])})
                for line in running.process.stdout:
                    there.out += line
                    if "gets no trials" in line:
                        break
                there.add("joining", env_vars={"PYTHONPATH": str(paths["stale"])})
                wait_until(lambda: there.worker_on("joining"), pause=0.05)
            there.code, out, errors = running.end()
            there.out += out + errors
        yield there
    finally:
        cluster.shutdown()
        shutil.rmtree(temporary, ignore_errors=True)


@pytest.mark.long
def test_a_node_that_joins_with_other_versions_gets_no_trials_and_is_named_with_both(nodes: Nodes) -> None:
    ours = compared_versions()["torch"]
    assert re.search(rf"node .* gets no trials: it has torch 9\.9\.9 there and {re.escape(ours)} here", nodes.out)
    assert nodes.out.count("gets no trials") == 1
    assert "other" not in nodes.seen.values()


@pytest.mark.long
def test_a_trial_that_wants_a_gpu_gets_it_and_one_on_the_cpu_runs_on_a_node_that_joins(nodes: Nodes) -> None:
    assert nodes.code == 0, nodes.out
    assert [(trial.status().state, len(trial.status().attempts)) for trial in nodes.trials()] == [(State.DONE, 1)] * 2
    assert [nodes.seen[trial.trial_id] for trial in nodes.trials("large")] == ["gpu"]
    assert [nodes.seen[trial.trial_id] for trial in nodes.trials("small")] == ["joining"]


@pytest.mark.long
def test_attempts_of_a_cluster_tell_the_commit_of_the_code_that_came_to_them(nodes: Nodes) -> None:
    commits = {attempt.commit for trial in nodes.trials() for attempt in trial.status().attempts}
    assert commits == {git_commit()}


@pytest.mark.long
def test_no_node_executes_what_lies_in_the_command_s_directory(nodes: Nodes) -> None:
    assert nodes.traps.executed == ""


@pytest.mark.long
def test_nodes_with_other_versions_or_code_are_refused_by_name_before_anything_starts(
    nodes: Nodes, tmp_path: Path
) -> None:
    copied = copy_packages(tmp_path / "copy")
    (copied / "trainers" / "steps.py").write_text("# other steps\n")
    nodes.add("copy", env_vars=imports_first(copied, tmp_path / "site"))
    runs = nodes.store.runs_dir.with_name("refused")
    ran = orchestrator(*nodes.command, "--runs-dir", runs, cwd=runs.parent, **nodes.environment)
    assert ran.returncode == 2, ran.stdout + ran.stderr
    assert re.search(rf"node \S+ \(\S+\) has torch 9\.9\.9 there and {compared_versions()['torch']}", ran.stderr)
    told = rf"node \S+ \(\S+\) runs other code than this command: trainers/steps\.py \(differs\) in {copied}/trainers"
    assert re.search(told, ran.stderr)
    assert "Traceback" not in ran.stderr
    assert not list(runs.glob("nodes/trials/*/metrics.jsonl"))
