"""The Dockerfiles: hadolint's rules, and this repository's promises about bases, layers, users and pins."""

from __future__ import annotations

import fnmatch
import importlib.metadata
import re
from pathlib import Path
from typing import NamedTuple

import pytest
from packaging.requirements import Requirement
from repository import BIN, ROOT, normalised, pins, run

FILES = ["docker/Dockerfile", "docker/mlflow.Dockerfile"]
PINNED_BY_TORCH = ("nvidia-", "cuda-", "triton")
PINS = {"requirements.txt": "requirements.txt", "cluster-requirements.txt": "docker/requirements.txt"}
"""The files of pins, by their names in an image."""
CLUSTERS = pins("docker/requirements.txt")


class Instruction(NamedTuple):
    name: str
    arguments: str


def instructions(file: str) -> list[Instruction]:
    """A Dockerfile's instructions, comments left out and continued lines joined."""
    text = re.sub(r"(?m)^\s*#.*\n", "", (ROOT / file).read_text(encoding="utf-8")).replace("\\\n", " ")
    return [Instruction(*line.split(maxsplit=1)) for line in text.splitlines() if line.strip()]


def copied(instruction: Instruction) -> list[str]:
    """What a COPY takes from the repository."""
    return instruction.arguments.split()[:-1]


def constraints(instruction: Instruction) -> list[str]:
    """The files of pins that an installation keeps to."""
    return [PINS[name] for name in re.findall(r"--constraint (\S+)", instruction.arguments)]


@pytest.mark.parametrize("file", FILES)
def test_hadolint_has_nothing_to_say(file: str) -> None:
    done = run(BIN / "hadolint", ROOT / file)
    assert (done.returncode, done.stdout) == (0, "")


def test_hadolint_would_say_something(tmp_path: Path) -> None:
    careless = (ROOT / FILES[0]).read_text(encoding="utf-8").replace("python:3.11.14-slim-bookworm", "python")
    file = tmp_path / "Dockerfile"
    file.write_text(careless.replace("USER 1000", "USER root"), encoding="utf-8")
    said = run(BIN / "hadolint", file)
    assert said.returncode != 0
    assert "DL3006" in said.stdout  # a base without a tag
    assert "DL3002" in said.stdout  # root at the end


@pytest.mark.parametrize("file", FILES)
def test_bases_are_full_versions(file: str) -> None:
    bases = [each.arguments for each in instructions(file) if each.name == "FROM"]
    assert bases
    assert all(re.fullmatch(r"\S+:\d+\.\d+\.\d+-\S+", base) for base in bases), bases


@pytest.mark.parametrize("file", FILES)
def test_the_user_is_not_root_and_has_a_number_that_kubernetes_can_check(file: str) -> None:
    assert [each.arguments for each in instructions(file) if each.name == "USER"] == ["1000"]


@pytest.mark.parametrize("file", FILES)
def test_dependencies_are_a_layer_before_the_code(file: str) -> None:
    steps = instructions(file)
    (dependencies,) = [step for step, each in enumerate(steps) if "--constraint requirements.txt" in each.arguments]
    copies = [(step, copied(each)) for step, each in enumerate(steps) if each.name == "COPY"]
    before = {source for step, sources in copies if step < dependencies for source in sources}
    assert before == {*constraints(steps[dependencies]), "pyproject.toml", "docker/dependencies.py"}
    after = [each.arguments for each in steps[dependencies + 1 :] if each.name == "RUN"]
    assert all("--no-deps" in each for each in after if "pip install" in each), after


@pytest.mark.parametrize("file", FILES)
def test_what_is_copied_is_there_and_not_ignored(file: str) -> None:
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    taken = [line[1:] for line in lines if line.startswith("!")]
    assert "*" in lines
    for source in (source for each in instructions(file) if each.name == "COPY" for source in copied(each)):
        there = [path.relative_to(ROOT).as_posix() for path in ROOT.glob(source)]
        assert there, source
        assert all(any(fnmatch.fnmatch(path, pattern) for pattern in taken) for path in there), source


@pytest.mark.parametrize("file", FILES)
def test_every_package_of_an_image_is_pinned(file: str) -> None:
    (install,) = [each for each in instructions(file) if "dependencies.py" in each.arguments and each.name == "RUN"]
    arguments = re.search(r"dependencies\.py (.*?) >", install.arguments)
    assert arguments is not None
    pinned = {name for each in constraints(install) for name in pins(each)}
    done = run(BIN / "python", ROOT / "docker" / "dependencies.py", *arguments[1].split(), cwd=ROOT)
    assert done.returncode == 0, done.stderr
    wanted = [Requirement(line) for line in done.stdout.split("\n") if line]
    assert wanted
    unpinned = {name for name in closure(wanted) if not name.startswith(PINNED_BY_TORCH)} - pinned
    assert unpinned == set()


def test_every_package_is_pinned_in_one_file() -> None:
    assert not set.intersection(*(set(pins(file)) for file in PINS.values()))


def closure(wanted: list[Requirement]) -> set[str]:
    """The names of all packages that come with those, on this platform, as their installed versions say; what machines
    of a cluster alone have is not looked into."""
    names: set[tuple[str, str]] = set()
    while wanted:
        requirement = wanted.pop()
        for extra in {"", *requirement.extras}:
            key = (normalised(requirement.name), extra)
            if key in names or key[0].startswith(PINNED_BY_TORCH):
                continue
            names.add(key)
            if key[0] in CLUSTERS:
                continue
            for line in importlib.metadata.requires(requirement.name) or []:
                needed = Requirement(line)
                if needed.marker is None or needed.marker.evaluate({"extra": extra}):
                    wanted.append(needed)
    return {name for name, _ in names}
