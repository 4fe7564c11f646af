"""``decisions.jsonl``: torn, damaged and foreign lines."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from command_line import CommandLine
from grown_sweeps import HEAD, RACE, SEARCH, grown, run
from hand_made import write_file

from orchestrator.decisions.growth import Growth
from orchestrator.errors import UserError
from orchestrator.store import decision_log
from orchestrator.store.decision_log import Decision, parse_decisions
from orchestrator.store.sweep import SweepStore


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return grown(tmp_path_factory.mktemp("searched"), HEAD + SEARCH).runs_dir


@pytest.fixture(scope="module")
def raced(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return grown(tmp_path_factory.mktemp("raced"), HEAD + RACE).runs_dir


def copied(runs: Path, folder: Path) -> SweepStore:
    shutil.copytree(runs, folder / "runs")
    return SweepStore(folder / "runs", "g")


def lines_of(store: SweepStore) -> list[str]:
    return store.decisions_file.read_text().splitlines(keepends=True)


def test_a_torn_last_line_is_no_decision_and_is_cut_before_the_next(searched: Path, tmp_path: Path) -> None:
    store = copied(searched, tmp_path)
    before, lines = store.entries(), lines_of(store)
    store.decisions_file.write_text("".join(lines)[:-20])
    assert store.plan_problems() == []
    assert len(store.entries()) == len(before) - 2  # the last decision confirms one cell with two seeds
    assert run(store) == []  # the trials are there, and the same decision finds them
    made = [json.loads(line) for line in lines_of(store)]
    assert [{**each, "timestamp": 0} for each in made] == [{**json.loads(line), "timestamp": 0} for line in lines]
    assert store.entries() == before


def changed(line: str, *path: Any, value: Any = None, delete: bool = False) -> str:
    values = json.loads(line)
    inner = values
    for piece in path[:-1]:
        inner = inner[piece]
    if delete:
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
    return json.dumps(values) + "\n"


SEARCHED = [
    pytest.param(lambda line: "{}\n", id="no decision"),
    pytest.param(lambda line: "[]\n", id="a list"),
    pytest.param(lambda line: line[:50] + "\n", id="cut"),
    pytest.param(lambda line: "\x00" * 80 + "\n", id="zeros"),
    pytest.param(lambda line: "\n", id="empty"),
    *(
        pytest.param(lambda line, path=path, value=value: changed(line, *path, value=value), id=f"{path}: {value}")
        for path, value in (
            (("kind",), 3),
            (("about",), []),
            (("about", "axes"), 3),
            (("about", "variant"), None),
            (("about", "proposal"), "1"),
            (("about", "setting"), [1]),
            (("rests_on",), None),
            (("rests_on", "proposals"), 1.5),
            (("rests_on", "seen"), {"x": ["done", 1.0, 3]}),
            (("rests_on", "seen"), {"0": "done"}),
            (("trials",), {}),
            (("trials", 0), "1b6c7bd0ee61"),
            (("trials", 0, "trial_id"), "../../x"),
            (("trials", 0, "stage"), "elsewhere"),
            (("trials", 0, "searched"), "critic.lr"),
        )
    ),
]
RACED = [
    pytest.param(lambda line, path=path, value=value: changed(line, *path, value=value), id=f"{path}: {value}")
    for path, value in (
        (("about", "look"), None),
        (("about", "had"), "2"),
        (("about", "seeds"), -3),
        (("about", "ended"), 3),
        (("rests_on", "cells"), [3]),
        (("rests_on", "cells", 0, "axes"), []),
        (("rests_on", "cells", 0, "out"), True),
        (("rests_on", "cells", 0), {}),
    )
]


def check_noticed(runs: Path, damage: Any) -> None:
    """That a damaged second line is noticed, and that nothing of what follows is read."""
    store = SweepStore(runs, "g")
    grown, lines = store.grown(), lines_of(store)
    assert grown is not None
    content = "".join([lines[0], damage(lines[1]), *lines[2:]]).encode()
    found, [problem] = parse_decisions(content, grown.growing, store.planned())
    assert found == list(grown.decisions[:1])
    assert problem.startswith("line 2 is damaged (b'")
    assert problem.endswith("so that it and what follows is left out")


@pytest.mark.parametrize("damage", SEARCHED)
def test_a_damaged_line_of_a_search_is_noticed(searched: Path, damage: Any) -> None:
    check_noticed(searched, damage)


@pytest.mark.parametrize("damage", RACED)
def test_a_damaged_line_of_a_race_is_noticed(raced: Path, damage: Any) -> None:
    check_noticed(raced, damage)


@pytest.mark.parametrize("kind", ["searched", "raced"])
def test_damage_in_the_middle_is_told_and_what_the_message_says_helps(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest, command_line: CommandLine
) -> None:
    store = copied(request.getfixturevalue(kind), tmp_path)
    lines, before = lines_of(store), store.entries()
    store.decisions_file.write_text("".join([lines[0], lines[1][:50] + "\n", *lines[2:]]))
    told = f"{store.decisions_file}: line 2 is damaged "
    with pytest.warns(UserWarning, match=re.escape(told)):
        assert len(store.entries()) < len(before)
    [problem] = store.plan_problems()
    assert problem.startswith(told)
    assert problem.endswith(f"so that it and what follows is left out; {decision_log.AGAIN}")
    with pytest.raises(UserError, match=re.escape(told)):
        Growth(store)
    code, out, message = command_line("status", "g", "--json", "--runs-dir", store.runs_dir)
    assert code == 1
    assert told in message
    assert json.loads(out)["damaged"] == [problem]
    store.decisions_file.write_text(lines[0])
    run(store)
    assert sorted(entry.trial_id for entry in store.entries()) == sorted(entry.trial_id for entry in before)


@pytest.mark.parametrize("key", ["of", "best", "seeds", "axes"])
def test_a_damaged_confirmation_is_told(searched: Path, tmp_path: Path, key: str) -> None:
    store = copied(searched, tmp_path)
    lines = lines_of(store)
    store.decisions_file.write_text("".join([*lines[:-1], changed(lines[-1], "about", key, delete=True)]))
    assert store.plan_problems()[0].startswith(f"{store.decisions_file}: line {len(lines)} is damaged ")


def test_a_kind_of_decision_that_only_a_newer_version_knows_is_told(searched: Path, tmp_path: Path) -> None:
    store = copied(searched, tmp_path)
    lines = lines_of(store)
    store.decisions_file.write_text("".join([*lines[:2], changed(lines[2], "kind", value="prune"), *lines[3:]]))
    [problem] = store.plan_problems()
    assert "line 3 is a decision of a kind that this version does not know, 'prune'" in problem
    with pytest.raises(UserError, match="does not know, 'prune'"):
        Growth(store)


def test_keys_that_only_a_newer_version_knows_are_ignored(searched: Path, tmp_path: Path) -> None:
    store = copied(searched, tmp_path)
    before, lines = store.entries(), lines_of(store)
    newer = changed(changed(changed(lines[0], "why", value="new"), "about", "why", value=1), "trials", 0, "y", value=2)
    store.decisions_file.write_text("".join([newer, *lines[1:]]))
    assert (store.plan_problems(), store.entries()) == ([], before)
    assert run(store) == []


def test_a_file_that_cannot_be_read_is_told(searched: Path, tmp_path: Path, command_line: CommandLine) -> None:
    store = copied(searched, tmp_path)
    store.decisions_file.unlink()
    store.decisions_file.mkdir()
    code, _, message = command_line("status", "g", "--runs-dir", store.runs_dir)
    assert code == 2
    assert "cannot be read: Is a directory" in message


def test_a_tail_returns_each_decision_once(tmp_path: Path) -> None:
    store = grown(tmp_path, HEAD + SEARCH, number=2)
    tail = store.decision_tail()
    first = tail.read()
    assert first
    assert tail.read() == []
    with store.decisions_file.open("a") as file:
        file.write('{"kind": "sea')  # being written just now
    assert tail.read() == []
    run(store)
    more = tail.read()
    assert [*first, *more] == list(store.grown().decisions)  # type: ignore[union-attr]
    assert tail.read() == []


def test_what_is_appended_to_a_torn_file_is_whole(tmp_path: Path) -> None:
    file = tmp_path / "decisions.jsonl"
    made = Decision("confirm", {"variant": "a", "axes": {}, "of": 1, "best": 1, "seeds": 1}, {})
    file.write_text('{"torn"')
    decision_log.append(file, [made])
    decision_log.append(file, [made, made])
    assert len(file.read_text().splitlines()) == 3
    assert all(json.loads(line)["about"] == made.about for line in file.read_text().splitlines())


def test_damage_of_what_may_grow_leaves_the_way_on(searched: Path, tmp_path: Path, command_line: CommandLine) -> None:
    store = copied(searched, tmp_path)
    before = sorted(entry.trial_id for entry in store.entries())
    file = store.path / "plan.json"
    content = json.loads(file.read_text())
    content["growing"]["groups"][0]["search"]["sampler"] = "annealing"
    file.write_text(json.dumps(content))
    code, _, message = command_line("status", "g", "--runs-dir", store.runs_dir)
    assert code == 2
    assert f"{file}: is damaged (its 'growing' cannot be used); run the sweep file again to write it anew" in message
    path = write_file(tmp_path, HEAD + SEARCH)
    code, _, _ = command_line("sweep", path, "--runs-dir", store.runs_dir, "--offline", "--executor", "local")
    assert code == 0
    assert sorted(entry.trial_id for entry in store.entries()) == before
