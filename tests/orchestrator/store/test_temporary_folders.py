"""Temporary folders are made where there is room for them, and where Ray's sockets fit."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from orchestrator.errors import UserError
from orchestrator.store import lock
from orchestrator.store.lock import end_marked, make_temporary_folder

MARKED = "0123456789ab"


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """Short folders in the place of /tmp and of TMPDIR."""
    system, own = tmp_path / "s", tmp_path / "o"
    system.mkdir()
    own.mkdir()
    monkeypatch.setattr(lock, "SYSTEM_TEMPORARY", system)
    monkeypatch.setattr(tempfile, "tempdir", str(own))
    return system, own


def fits(place: Path) -> int:
    return len(str(place / f"ray-{MARKED}"))


def test_ray_s_folder_is_in_the_system_s_temporary_folder(places: tuple[Path, Path]) -> None:
    system, own = places
    assert make_temporary_folder("ray", MARKED, fits(system)) == system / f"ray-{MARKED}"
    assert make_temporary_folder("orchestrator-tune", MARKED).parent == own
    end_marked(MARKED)
    assert list(system.iterdir()) == list(own.iterdir()) == []


def test_ray_s_folder_is_in_tmpdir_where_the_system_s_cannot_be_written(places: tuple[Path, Path]) -> None:
    system, own = places
    system.rmdir()
    system.touch()
    assert make_temporary_folder("ray", MARKED, fits(own)) == own / f"ray-{MARKED}"
    end_marked(MARKED)
    assert list(own.iterdir()) == []


def test_a_tmpdir_whose_path_is_too_long_for_sockets_is_told(
    places: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    system, own = places
    system.rmdir()
    system.touch()
    longer = own / "longer"
    longer.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(longer))
    with pytest.raises(UserError, match=f"'{system}' cannot be written: Not a directory; '{longer}' is 7 char") as told:
        make_temporary_folder("ray", MARKED, fits(own))
    assert f"a path of at most {len(str(own))} characters" in str(told.value)
    monkeypatch.setattr(tempfile, "tempdir", str(system))
    with pytest.raises(UserError, match=f"'{system}' cannot be written: Not a directory. Set TMPDIR to a folder with"):
        make_temporary_folder("orchestrator-tune", MARKED)


@pytest.mark.parametrize("options", ["ro", "size=64k"], ids=["read-only", "full"])
def test_a_real_folder_without_room(options: str, places: tuple[Path, Path]) -> None:
    """In a name space of its own, where this process may mount a file system."""
    system, own = places
    program = (
        "import sys; from pathlib import Path; from orchestrator.store import lock; "
        "lock.SYSTEM_TEMPORARY = Path(sys.argv[1]); print(lock.make_temporary_folder('ray', sys.argv[2]))"
    )
    script = f'mount -t tmpfs -o {options} tmpfs "{system}" || exit 77; exec "$@"'
    command = ["unshare", "-rm", "sh", "-c", script, "sh", sys.executable, "-c", program, str(system), MARKED]
    environment = os.environ | {"TMPDIR": str(own)}
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if ran.returncode == 77 or "unshare" in ran.stderr:
        pytest.skip("this process may not mount file systems")
    assert ran.stdout == f"{own / f'ray-{MARKED}'}\n", ran.stderr
