"""A report is one complete file: it fetches nothing, and its values are never interpreted as markup."""

from __future__ import annotations

import base64
import html.parser
import json
import re
import shutil
import subprocess
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
from command_line import CommandLine
from drawn_sweeps import METRIC, make_drawn, store_trial
from hand_made import TWO_CELLS, attempt, finish, make_sweep

from orchestrator.results.comparison import comparison_table
from orchestrator.results.figures import sweep_pictures
from orchestrator.results.report import report_html
from orchestrator.results.verdict_text import sentences
from orchestrator.store.states import State, Status
from orchestrator.store.sweep import SweepStore

CHROMIUM = shutil.which("chromium")
PAPER = "paper: {source: 'Somebody, Table 1', rows: {hand weight=2: {exact_w1: 0.75}}}\n"
BAD = {(1, 0): State.FAILED, (1, 1): State.DIVERGED, (2, 2): State.LOST}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> SweepStore:
    """Two cells of three seeds. Not every trial has finished, and a paper has a number for one cell."""
    text = TWO_CELLS.replace("seeds: 2", "seeds: 3") + PAPER
    folder = tmp_path_factory.mktemp("drawn")
    return make_drawn(folder, text, lambda entry: BAD.get((entry.axes["penalty.weight"], entry.seed), State.DONE))


@pytest.fixture(scope="module")
def report(drawn: SweepStore) -> str:
    return report_html(drawn)


class Page(html.parser.HTMLParser):
    """Collects tags with their attributes and the text of each section. Checks that tags are closed in order."""

    VOID = frozenset({"meta", "img", "br"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.sections: dict[str | None, str] = {}
        self.open: list[str] = []
        self.section: str | None = None
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "section":
            self.section = dict(attrs)["id"]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.sections[self.section] = self.sections.get(self.section, "") + data

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def test_nothing_points_outside_the_file(drawn: SweepStore, report: str) -> None:
    page = Page(report)
    assert page.open == []
    identities = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
    for _, attributes in page.tags:
        for name in ("src", "href", "srcset", "data", "action", "poster"):
            value = attributes.get(name) or "#question"
            assert value.startswith("data:image/svg+xml;base64,") or value.removeprefix("#") in identities
    assert "url(" not in report
    assert "@import" not in report
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in page.tags}
    assert len(identities) == sum("id" in attributes for _, attributes in page.tags)


def test_every_figure_is_in_it_with_words_for_those_who_do_not_see_it(drawn: SweepStore, report: str) -> None:
    images = Page(report).named("img")
    pictures = sweep_pictures(drawn, kinds=())
    assert [image["alt"] for image in images] == [picture.alt for picture in pictures]
    for image in images:
        kind, _, content = (image["src"] or "").partition(",")
        assert kind == "data:image/svg+xml;base64"
        assert ET.fromstring(base64.b64decode(content)).tag.endswith("svg")


def test_the_sections_have_what_they_say(drawn: SweepStore, report: str) -> None:
    sections = Page(report).sections
    assert "two cells" in sections[None]
    table = comparison_table(drawn)
    assert list(sections)[:3] == [None, "verdict", "question"]
    assert [line for line in sections["verdict"].splitlines() if line in sentences(table.verdict)] == sentences(
        table.verdict
    )
    assert "not finished: 2 of 6 trials have no result" in sections["verdict"]
    assert not any(sentence in sections["table"] for sentence in sentences(table.verdict))  # once is enough
    assert f"Cells by the lowest {METRIC}." in sections["question"]
    assert "6 trials: 3 DONE, 1 DIVERGED, 1 FAILED, 1 LOST." in sections["question"]
    for words in ("mixture", "weight: 1, 2", "batch_size=8", "0, 1, 2", "40"):
        assert words in sections["question"]
    for row in table.rows:
        assert row.variant in sections["table"]
    assert "0.75" in sections["table"]  # the paper's
    assert "Somebody, Table 1" in sections["table"]
    for entry in drawn.entries():
        status = drawn.trial(entry.trial_id).status()
        assert (f"trials/{entry.trial_id}/log.txt" in sections["problems"]) is (status.state is not State.DONE)
        assert status.error is None or status.error in sections["problems"]
    assert "0123456789ab (6 attempts)" in sections["repeat"]
    assert "git checkout 0123456789ab\norchestrator sweep sweep.yaml --name hand\n" in sections["repeat"]
    assert (drawn.path / "sweep.yaml").read_text() in sections["repeat"]


def test_cost_is_the_sum_of_what_epochs_took(drawn: SweepStore, report: str) -> None:
    cells = re.findall(r'<th scope="row">([^<]*)</th>((?:<td[^>]*>[^<]*</td>)+)', report.split('id="cost"')[1])
    rows = {label: re.findall(r"<td[^>]*>([^<]*)</td>", row) for label, row in cells}
    assert rows == {  # half a second an epoch and a quarter an evaluation
        "hand weight=1": ["3", "3", "2.5", "2.0", "0.001", "cpu (x86_64)"],  # 1 + 1 + 3 epochs, 2 + 2 + 4 evaluations
        "hand weight=2": ["3", "3", "3.5", "2.5", "0.002", "cpu (x86_64)"],
        "all": ["6", "6", "6.0", "4.5", "0.003", "cpu (x86_64)"],
    }


def test_trials_of_other_sweeps_are_named_beside_their_cost(store: SweepStore) -> None:
    origin = {"sweep": "short", "trial_id": "a", "iteration": 20}
    origins: list[dict[str, Any]] = [{"copied_from": "before"}, *[{"continued_from": origin}] * 2, {}]
    for entry, told in zip(store.entries(), origins, strict=True):
        store.trial(entry.trial_id).write_status(Status(State.DONE, [attempt()], **told))
    cost = Page(report_html(store)).sections["cost"]
    assert "1 of the trials was copied from the sweep before, where its cost arose." in cost
    assert "2 of the trials continue trials of the sweep short: the seconds up to there are counted here too." in cost


def test_the_command_writes_the_same_bytes_into_the_sweep_s_folder(
    drawn: SweepStore, report: str, command_line: CommandLine
) -> None:
    told = command_line("report", "hand", "--runs-dir", drawn.runs_dir)
    assert told == (0, f"{drawn.path / 'hand.html'}\n", "")
    assert (drawn.path / "hand.html").read_text() == report


def test_a_sweep_of_which_all_went_well(store: SweepStore) -> None:
    for entry in store.entries():
        store_trial(store, entry, {0: {METRIC: 2.0}})
    sections = Page(report_html(store)).sections
    assert "not finished" not in sections["verdict"]
    assert "Nothing: no trial failed" in sections["problems"]


def test_the_sweep_file_is_read_as_the_planner_reads_it(tmp_path: Path) -> None:
    """The value is text here. Other YAML readers take it for a date, and no such date exists."""
    sections = Page(report_html(make_sweep(tmp_path, TWO_CELLS.replace("two cells", "2020-13-45")))).sections
    assert "2020-13-45" in sections[None]
    assert "description: 2020-13-45" in sections["repeat"]


def test_nothing_is_taken_for_markup(store: SweepStore) -> None:
    hostile = '<script>alert("1")</script>&amp;'
    plan = json.loads((store.path / "plan.json").read_text())
    plan |= {"description": hostile, "overrides": [f"dataset.root={hostile}"]}
    for trial in plan["trials"]:
        trial |= {"setting": f"{hostile} {trial['setting']}", "axes": {hostile: trial["axes"]["penalty.weight"]}}
    (store.path / "plan.json").write_text(json.dumps(plan))
    with (store.path / "sweep.yaml").open("a") as file:
        file.write(f"# {hostile}\n")
    attempts = [attempt(commit=hostile, device=hostile, versions={hostile: hostile})]
    for entry in store.entries():
        finish(store, entry, {"exact_w1": 1.0})
        ended = (State.FAILED, attempts, f"OSError: {hostile}") if entry.seed else (State.DONE, attempts)
        store.trial(entry.trial_id).write_status(Status(*ended, copied_from=hostile))
    page = Page(report_html(store))
    assert page.named("script") == []
    for section in (None, "verdict", "question", "table", "problems", "cost", "repeat"):
        assert hostile in page.sections[section], section


def test_before_anything_has_run_a_report_says_so(store: SweepStore) -> None:
    page = Page(report_html(store))
    assert "4 of 4 trials have no result" in page.sections["verdict"]
    assert "None yet: no cell has a value of exact_w1." in page.sections["verdict"]
    assert "no trial of 'hand' has finished an epoch" in page.sections["figures"]
    assert "There are none." in page.sections["samples"]
    assert "Nothing: no trial failed" in page.sections["problems"]  # so far
    assert "nothing has run" in page.sections["repeat"]
    assert page.named("img") == []


def test_code_that_cannot_be_checked_out_is_not_asked_for(store: SweepStore) -> None:
    plan = json.loads((store.path / "plan.json").read_text())
    plan["overrides"] = ["dataset.root=a folder", "scale=small"]
    (store.path / "plan.json").write_text(json.dumps(plan))
    for entry, commit in zip(store.entries(), ["aaaa-dirty", "aaaa-dirty", "bbbb", "bbbb"], strict=True):
        status = store.trial(entry.trial_id).status()
        status.attempts = [attempt(commit=commit)]
        store.trial(entry.trial_id).write_status(status)
    told = Page(report_html(store)).sections["repeat"]
    assert "aaaa-dirty (2 attempts), bbbb (2 attempts)" in told
    assert "git checkout" not in told
    assert "orchestrator sweep sweep.yaml 'dataset.root=a folder' scale=small --name hand" in told


def test_another_file(store: SweepStore, tmp_path: Path, command_line: CommandLine) -> None:
    told = command_line("report", "hand", "--runs-dir", store.runs_dir, "-o", tmp_path / "r.html")
    assert told == (0, f"{tmp_path / 'r.html'}\n", "")
    assert (tmp_path / "r.html").read_text() == report_html(store)
    code, out, message = command_line("report", "hand", "--runs-dir", store.runs_dir, "-o", tmp_path / "no" / "r.html")
    assert (code, out) == (2, "")
    assert "r.html: cannot be written: No such file" in message


@pytest.mark.parametrize("folder", [".", "there"])
def test_a_folder_as_output_is_an_error(
    store: SweepStore, tmp_path: Path, command_line: CommandLine, monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").mkdir()
    code, out, message = command_line("report", "hand", "-o", folder)
    assert (code, out) == (2, "")
    assert message == f"orchestrator: --output {folder}: expected a file; this is a folder\n"


@pytest.mark.parametrize("content", ["", '{"metrics": ', "[]"])
def test_damaged_references_are_as_if_they_had_not_been_written(
    store: SweepStore, command_line: CommandLine, content: str
) -> None:
    done, other, *_ = store.entries()
    for entry in (done, other):
        store_trial(store, entry, {0: {METRIC: 1.0}, 1: {METRIC: 0.5}})
    file = store.trial(done.trial_id).path / "references.json"
    file.write_text(content)
    with pytest.warns(UserWarning, match="is damaged and left out"):
        assert store.trial(done.trial_id).references() == {}
    for command in ("export", "plot", "report"):
        code, _, message = command_line(command, "hand", "--runs-dir", store.runs_dir)
        assert code == 0
        assert message.startswith(f"note: {file}: is damaged and left out (")
        assert message.count("\n") == 1


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
def test_a_browser_shows_every_picture_and_no_page_is_wider_than_its_window(report: str, tmp_path: Path) -> None:
    page = html.escape(report)
    frames = "".join(f'<iframe width="{width}" height="900" srcdoc="{page}"></iframe>' for width in (400, 1600))
    asks = """<script>onload = () => document.title = JSON.stringify([...document.querySelectorAll("iframe")].map(
        ({contentDocument: page}) => [page.images.length, [...page.images].filter(image => !image.naturalWidth).length,
        page.documentElement.scrollWidth - page.documentElement.clientWidth]))</script>"""
    (tmp_path / "frames.html").write_text(f"<!doctype html><title></title>{asks}<body>{frames}")
    options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom"]
    command = [str(CHROMIUM), *options, f"file://{tmp_path / 'frames.html'}"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert json.loads(re.findall("<title>(.*?)</title>", ran.stdout)[0]) == [[4, 0, 0], [4, 0, 0]]
