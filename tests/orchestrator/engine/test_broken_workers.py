"""Workers that cannot import what a trial needs, and workers that are ended for lack of memory, say so."""

from __future__ import annotations

import re
from pathlib import Path

from command_line import orchestrator
from hand_made import write_file

from orchestrator.store.states import State
from orchestrator.store.sweep import SweepStore

BROKEN_LIBRARY = """\
import sys

class Broken:
    def find_spec(self, name, path=None, target=None):
        if name == "trainers.training":
            raise ImportError("libtorch.so is missing here")

if "default_worker" in " ".join(sys.orig_argv):
    sys.meta_path.insert(0, Broken())
"""
SWEEP = "name: small\nbase: [dataset=mixture, network=mlp, evaluation=none, budget=2, device=cpu]\n"


def test_an_import_that_fails_on_a_worker_is_failed_with_its_error(tmp_path: Path) -> None:
    """In the working directory lies a file ``trainers.py``, which no worker must take for our package."""
    (tmp_path / "trainers.py").write_text("raise RuntimeError('this is no package of ours')\n")
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(BROKEN_LIBRARY)
    file = write_file(tmp_path, SWEEP)
    ran = orchestrator("sweep", file, "--offline", cwd=tmp_path, PYTHONPATH=str(tmp_path / "site"))
    store = SweepStore.open(tmp_path / "runs", "small")
    trial = store.trial(store.entries()[0].trial_id)
    told = "ImportError: libtorch.so is missing here"
    assert (trial.status().state, trial.status().error) == (State.FAILED, told), ran.stderr
    assert ran.returncode == 1
    assert told in trial.log_file.read_text()


def test_a_trial_whose_worker_is_ended_for_lack_of_memory_says_so_with_the_numbers_and_what_helps(
    tmp_path: Path,
) -> None:
    """Ray's own memory monitor ends the worker, because it may use a thousandth of the memory."""
    file = write_file(tmp_path, SWEEP + "retries: 0\n")
    monitor = {"RAY_memory_usage_threshold": "0.001", "RAY_memory_monitor_refresh_ms": "100"}
    ran = orchestrator("sweep", file, "--offline", cwd=tmp_path, **monitor)
    store = SweepStore.open(tmp_path / "runs", "small")
    status = store.trial(store.entries()[0].trial_id).status()
    assert (ran.returncode, status.state) == (1, State.LOST), ran.stderr
    node = r"node [\d.]+, which had [\d.]+ of [\d.]+ GB in use; the worker had [\d.]+ GB"
    advice = "No other trial ran: this one needs a machine with more memory, or a smaller batch_size"
    assert re.fullmatch(rf"the worker died: out of memory on {node}\. {advice}", status.error or ""), status.error
    assert f"LOST small seed=0: {status.error}" in ran.stdout
