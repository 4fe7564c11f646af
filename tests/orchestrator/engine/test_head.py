"""What a driver asks the head of a Ray cluster, on the shared Ray of the tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_line import Cluster, orchestrator, wait_until
from hand_made import TWO_CELLS, write_file
from object_stores import Network

from orchestrator.engine import head
from orchestrator.engine.head import watch_ray


@pytest.mark.parametrize("changes", [{"RAY_AUTH_TOKEN": "0" * 32}, {"RAY_AUTH_MODE": "disabled"}])
def test_a_driver_that_the_cluster_refuses_begins_nothing_and_names_the_variables_to_set(
    tmp_path: Path, cluster: Cluster, changes: dict[str, str]
) -> None:
    sweep = ["sweep", write_file(tmp_path, TWO_CELLS), "--runs-dir", tmp_path / "runs", "--offline"]
    ended = orchestrator(*sweep, *cluster.arguments, cwd=tmp_path, **(cluster.environment | changes))
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == (
        f"orchestrator: --address {cluster.arguments[1]}: the cluster refuses our token; set RAY_AUTH_MODE=token "
        "and RAY_AUTH_TOKEN (or RAY_AUTH_TOKEN_PATH, a file) to the values with which its nodes were started\n"
    )
    assert not (tmp_path / "runs" / "hand").exists()


def test_a_head_that_does_not_answer_in_time_is_gone(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(head, "LOOK_SECONDS", 1.0)  # a look that the end interrupts takes Ray's client half a minute
    monkeypatch.setattr(head, "patience", lambda: 2.0)
    network = Network(int(cluster.arguments[1].rpartition(":")[2]))
    address = f"127.0.0.1:{network.port}"
    told: list[str] = []
    with watch_ray(address, told.append):
        wait_until(lambda: told, 3, may_fail=True)
        assert not told
        network.close()
        wait_until(lambda: told)
    assert told == [f"the head of the Ray cluster at {address} has not answered for 2 s"]
