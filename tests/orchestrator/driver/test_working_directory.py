"""Nothing that lies in the working directory is executed, whatever its name. Code that was edited runs no trial."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import PATIENCE, environment, orchestrator
from hand_made import POINTS, write_file
from small_trials import assert_equal_to_the_bit
from traps import EVERY_NAME, Traps, copy_packages

from orchestrator.store.states import State, Status
from orchestrator.store.sweep import SweepStore
from orchestrator.store.trial import TrialStore
from orchestrator.tracking.generators import PROGRAM
from orchestrator.trial.code import digest
from orchestrator.trial.run import run_trial

SWEEP = f"name: small\nbase: {POINTS}\nseeds: 2\n"
COMMAND = [sys.executable, "-P", "-m", "orchestrator"]


def begin(*command: object, cwd: Path, **changes: str) -> subprocess.Popen[str]:
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(list(map(str, command)), cwd=cwd, env=environment(**changes), text=True, **pipes)  # type: ignore[call-overload]


def run(*command: object, cwd: Path, **changes: str) -> tuple[int, str, str]:
    """Runs a command to its end. Returns exit code, standard output and standard error."""
    with begin(*command, cwd=cwd, **changes) as process:
        out, err = process.communicate(timeout=PATIENCE)
    return process.returncode, out, err


def before_ours() -> set[str]:
    """The modules that Python itself imports, or tries to, before it runs ``python -m orchestrator``."""
    code, out, _ = run(sys.executable, "-P", "-c", "import runpy, sys; print(*sys.modules)", cwd=Path("/"))
    assert code == 0
    elsewhere = {name for name in sys.stdlib_module_names if importlib.util.find_spec(name) is None}
    return {*out.replace(".", " ").split(), *elsewhere, "__future__"}


@pytest.mark.long
def test_a_sweep_executes_nothing_from_the_working_directory(tmp_path: Path) -> None:
    """The numbers are to the bit those of trials that run elsewhere."""
    traps = Traps(tmp_path / "work")
    traps.add_changed("orchestrator", "trainers")
    write_file(traps.folder, SWEEP)
    ran = orchestrator("sweep", "sweep.yaml", "--offline", cwd=traps.folder)
    assert (ran.returncode, traps.executed) == (0, ""), ran.stderr
    store = SweepStore.open(traps.folder / "runs", "small")
    for entry in store.entries():
        trial, twin = store.trial(entry.trial_id), TrialStore(tmp_path / "twins" / entry.trial_id)
        assert [attempt.code for attempt in trial.status().attempts] == [digest()]
        twin.create(trial.config())
        assert run_trial(twin, tmp_path / "cache") is State.DONE
        assert_equal_to_the_bit(trial, twin)


@pytest.mark.parametrize(
    ("command", "path"),
    [
        pytest.param([sys.executable, "-m", "orchestrator"], "", id="python -m"),
        pytest.param(COMMAND, ":/my/lib", id="an empty entry of PYTHONPATH"),
    ],
)
def test_a_program_for_which_python_looks_in_the_working_directory_does_not(
    command: list[str], path: str, tmp_path: Path
) -> None:
    traps = Traps(tmp_path / "work", EVERY_NAME - before_ours())
    traps.add_changed("trainers")
    write_file(traps.folder, SWEEP)
    code, out, err = run(*command, "sweep", "sweep.yaml", "--dry-run", cwd=traps.folder, PYTHONPATH=path)
    assert (code, traps.executed) == (0, ""), err
    assert "2 trials" in out


def test_a_checkout_that_is_not_installed_runs_its_own_code_from_its_folder(tmp_path: Path) -> None:
    """It is beside another one, which is installed. Files in its folder hide no library."""
    traps = Traps(tmp_path / "checkout", EVERY_NAME - before_ours())
    traps.add_changed("orchestrator", "trainers")
    write_file(traps.folder, SWEEP)
    code, _, err = run(sys.executable, "-m", "orchestrator", "sweep", "sweep.yaml", "--dry-run", cwd=traps.folder)
    assert code == 0, err
    assert traps.executed.split() == ["orchestrator", "trainers"]


def test_the_process_that_writes_generators_runs_the_driver_s_code(tmp_path: Path) -> None:
    traps = Traps(tmp_path / "checkout")
    traps.add_changed("orchestrator", "trainers")
    command = [sys.executable, "-P", "-c", PROGRAM, str(traps.folder)]
    ended = subprocess.run(command, cwd=tmp_path, stdin=subprocess.DEVNULL, env=environment(), check=False)
    assert (ended.returncode, traps.executed.split()) == (0, ["orchestrator", "trainers"])


def test_two_mixed_copies_of_our_packages_are_an_error(tmp_path: Path) -> None:
    copy_packages(tmp_path, "trainers")
    code, _, err = run(*COMMAND, "status", cwd=tmp_path, PYTHONPATH=str(tmp_path))
    assert (code, err.count("\n")) == (2, 1)
    assert f"and 'trainers' from '{tmp_path}'" in err
    assert "out of PYTHONPATH" in err


@pytest.mark.long
def test_code_that_is_edited_while_a_sweep_runs_ends_it_and_touches_no_trial(tmp_path: Path) -> None:
    edited = copy_packages(tmp_path / "installed") / "trainers" / "steps.py"
    write_file(tmp_path, SWEEP)
    command = [*COMMAND, "sweep", "sweep.yaml", "--offline"]
    with begin(*command, cwd=tmp_path, PYTHONPATH=str(tmp_path / "installed")) as process:
        assert process.stdout is not None
        assert "starting Ray" in process.stdout.readline()
        edited.write_text(edited.read_text() + "\n# another word\n")
        out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1, out + err
    told = f"runs other code than this command: trainers/steps.py (differs) in {edited.parent}. The code was edited"
    *_, stopped, resume = out.strip().splitlines()
    assert stopped.startswith("Stopped early: no node is left to begin trials on: node ")
    assert told in stopped
    assert resume == "Some trials did not finish; go on with: orchestrator resume small --offline"
    store = SweepStore.open(tmp_path / "runs", "small")
    assert [store.trial(entry.trial_id).status() for entry in store.entries()] == [Status(), Status()]
