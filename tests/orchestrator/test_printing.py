"""No text from a file controls a terminal: what would is written out. Formats for programs keep it."""

from __future__ import annotations

import csv
import html
import io
import json
import re
import unicodedata
import warnings
from pathlib import Path

import pytest
from command_line import CommandLine
from hand_made import finish
from rich.console import Console

from orchestrator.errors import notes
from orchestrator.printing import one_line, printable
from orchestrator.results.formats import FORMATS, rich_table
from orchestrator.results.tables import Row, Table, Value
from orchestrator.screen.progress import Progress, Watch
from orchestrator.store.states import State
from orchestrator.store.sweep import SweepStore
from trainers.metrics import Metric

HOSTILE = "\x1b]0;owned\x07\x1b[2J\r\x9b31m\u202egnp.exe"
SHOWN = r"\x1b]0;owned\x07\x1b[2J\x0d\x9b31m\u202egnp.exe"


def assert_harmless(text: str) -> None:
    bad = [letter for letter in text if unicodedata.category(letter) == "Cc" and letter not in "\n\t"]
    assert bad == []
    assert "\u202e" not in text


@pytest.fixture
def hostile(store: SweepStore) -> SweepStore:
    """A sweep whose error, description, names of cells, notes and files hold what controls a terminal."""
    plan = json.loads((store.path / "plan.json").read_text())
    plan["description"] = f"{HOSTILE} <script>alert(1)</script>"
    for trial in plan["trials"]:
        trial["setting"] += f" {HOSTILE}"
    (store.path / "plan.json").write_text(json.dumps(plan))
    for entry in store.entries():
        finish(store, entry, {"exact_w1": 0.5}, info={"solver": HOSTILE})
    trial = store.trial(store.entries()[0].trial_id)
    trial.set_state(State.FAILED, f"OSError: {HOSTILE} <script>alert(2)</script>")
    (trial.path.parent / HOSTILE.replace("/", "")).write_text("a note")
    (trial.path / f".checkpoint.pt.{HOSTILE}").write_bytes(bytes(10))
    return store


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (HOSTILE, SHOWN),
        ("two\nlines\tand a tab", "two\nlines\tand a tab"),
        ("φ ± ↓ é 漢 😀", "φ ± ↓ é 漢 😀"),
        ("\x7f\x00\x85\u2028\u2066\udc80", r"\x7f\x00\x85\u2028\u2066\udc80"),
        (ValueError("an \x1b error"), r"an \x1b error"),
    ],
)
def test_control_characters_are_written_out(text: object, shown: str) -> None:
    assert printable(text) == shown


def test_every_control_character_of_unicode_is_written_out() -> None:
    assert_harmless(printable("".join(map(chr, range(0x3000)))))
    assert one_line("a\r\nb\x85c\u2029d") == "a b c d"


@pytest.mark.parametrize(
    "arguments",
    [
        ["status"],
        ["status", "hand"],
        *(["export", "hand", "--format", name] for name in ("markdown", "latex", "html")),
        ["export", "hand", "--baseline", HOSTILE],
        ["status", HOSTILE],
        ["prune", "hand", "--dry-run"],
        ["resume", "hand", "--offline", "--trial", HOSTILE],
        ["evaluate", HOSTILE],
        ["sweep", HOSTILE],
    ],
    ids=lambda arguments: " ".join(arguments).replace(HOSTILE, "HOSTILE"),
)
def test_no_command_prints_what_controls_a_terminal(
    hostile: SweepStore, command_line: CommandLine, arguments: list[str]
) -> None:
    _, out, errors = command_line(*arguments, "--runs-dir", hostile.runs_dir)
    assert_harmless(out + errors)
    assert r"\x1b" in out + errors or "textbackslash" in out or arguments == ["status"]


def test_formats_for_programs_keep_the_text(hostile: SweepStore, command_line: CommandLine) -> None:
    common = ["--runs-dir", hostile.runs_dir]
    known = json.loads(command_line("status", "hand", "--json", *common)[1])
    assert known["trials"][0]["error"] == f"OSError: {HOSTILE} <script>alert(2)</script>"
    assert HOSTILE in json.loads(command_line("export", "hand", "--format", "json", *common)[1])["rows"][0]["setting"]
    assert list(csv.reader(io.StringIO(command_line("export", "hand", "--format", "csv", *common)[1])))


def test_a_report_shows_markup_as_text(hostile: SweepStore, command_line: CommandLine, tmp_path: Path) -> None:
    assert command_line("report", "hand", "-o", tmp_path / "x.html", "--runs-dir", hostile.runs_dir)[0] == 0
    text = (tmp_path / "x.html").read_text()
    for number in (1, 2):
        assert f"<script>alert({number})" not in text
        assert html.escape(f"<script>alert({number})</script>") in text


@pytest.mark.parametrize("terminal", [True, False], ids=["terminal", "elsewhere"])
def test_progress_shows_control_characters_as_text(hostile: SweepStore, terminal: bool) -> None:
    written = io.StringIO()
    console = Console(file=written, width=250, force_terminal=terminal, force_interactive=terminal, color_system=None)
    watch = Watch(hostile)
    with Progress(watch, console, lambda: 1) as progress:
        progress.update(watch.refresh())
    text = written.getvalue()
    assert f"FAILED {printable(watch.trials[0].label)}: OSError: {SHOWN}" in text
    assert_harmless(re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\r", "", text))  # rich's own
    assert "\x1b[2J" not in text


def test_a_warning_is_shown_without_what_controls_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with notes():
        warnings.warn(f"'{HOSTILE}' is no image", stacklevel=1)
    assert capsys.readouterr().err == f"note: '{' '.join(SHOWN.split())}' is no image\n".replace(r"\x0d", " ")


ODD = "a|b\\|c\nd\x1b"


@pytest.mark.parametrize("name", ["markdown", "latex"])
def test_no_label_breaks_the_rows_of_a_table(name: str) -> None:
    row = Row(ODD, ODD, {}, {"m": Value(1.0, 0.5, 2)}, frozenset({"m"}), (ODD,))
    fine = Row("a", "b", {}, {"m": Value(1.0, 0.5, 2)}, frozenset({"m"}), ("c",))
    texts = [
        FORMATS[name][1](Table("t", (), (Metric("m", "min"),), (each,), (note,)))
        for each, note in ((row, ODD), (fine, "n"))
    ]
    odd, plain = (text.splitlines() for text in texts)
    assert len(odd) == len(plain)
    assert_harmless(texts[0])
    if name == "markdown":  # a cell ends at a bar that no backslash escapes; a backslash may be escaped itself
        ends = [len(re.findall(r"(?:\\.|[^|\\])*\|", line)) for line in (odd[2], plain[2])]
        assert ends[0] == ends[1]
    else:
        assert odd[5].count("&") == plain[5].count("&")
        assert odd[-1].startswith("% a|b")


def test_a_table_on_a_terminal_has_no_control_characters() -> None:
    row = Row(HOSTILE, "x=1", {}, {"m": Value(1.0, 0.5, 2)}, frozenset({"m"}), (HOSTILE,))
    console = Console(width=200, record=True, file=io.StringIO(), color_system=None)
    console.print(rich_table(Table("t", (), (Metric("m", "min"),), (row,), ()), 200))
    text = console.export_text()
    assert_harmless(text)
    assert r"\x1b]0;owned" in text
