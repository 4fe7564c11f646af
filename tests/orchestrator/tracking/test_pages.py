"""MLflow's own pages in a browser, as ``orchestrator ui`` shows them on the first visit."""

from __future__ import annotations

import os
import re
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import mean
from typing import Any, TypeVar

import pytest
from command_line import Running, free_port, started, wait_until
from hand_made import finish, make_sweep
from selenium import webdriver
from selenium.common.exceptions import ElementNotInteractableException, StaleElementReferenceException
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait
from test_ui import page

from orchestrator.store.states import State
from orchestrator.store.sweep import SweepStore
from orchestrator.tracking.address import quiet_client
from orchestrator.tracking.mirror import Mirror

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="needs the Debian packages chromium and chromium-driver"),
]

T = TypeVar("T")


class Pages:
    """A browser on the addresses that the command has printed."""

    def __init__(self, browser: Any, printed: list[str], store: SweepStore) -> None:
        self.browser = browser
        self.printed = printed
        self.store = store
        self.server = printed[0].partition("/#/")[0]

    def open(self, address: str) -> None:
        """Opens the address anew, as a click on it in a terminal does."""
        self.browser.get("about:blank")
        self.browser.get(address)

    def until(self, found: Callable[[], T]) -> T:
        """Waits until ``found`` returns a true value, and returns that value."""
        ignored = (StaleElementReferenceException, ElementNotInteractableException)
        return WebDriverWait(self.browser, 40, 0.1, ignored).until(lambda _: found())

    def all(self, selector: str) -> list[WebElement]:
        return self.browser.find_elements(By.CSS_SELECTOR, selector)

    def text(self) -> str:
        return self.browser.find_element(By.TAG_NAME, "body").text

    def link(self, text: str) -> WebElement:
        return self.until(lambda: next(iter(self.browser.find_elements(By.LINK_TEXT, text)), None))

    def lines(self) -> list[tuple[str, list[float], list[float]]]:
        """The lines of the first chart, as Plotly drew them: name (groups of runs have none), x and y."""
        script = """
            const plot = document.querySelector('.js-plotly-plot');
            const lines = plot && plot.data ? plot.data.filter(line => line.mode === 'lines+markers') : [];
            return lines.map(line => [line.name, [...line.x], [...line.y]]);
        """
        return self.until(lambda: self.browser.execute_script(script))

    def picture(self, name: str) -> None:
        """Waits until the page has fetched a picture of this name, or a part of it, and shows all of its pictures.

        From MLflow 3.18 on a picture's own address says nothing: the page fetches it and hands it on as a blob.
        """
        script = """
            const fetched = performance.getEntriesByType('resource').map(entry => decodeURIComponent(entry.name));
            const pictures = [...document.querySelectorAll('img')];
            return fetched.some(name => name.includes(arguments[0])) && pictures.length > 0
                   && pictures.every(picture => picture.complete && picture.naturalWidth > 0);
        """
        self.until(lambda: self.browser.execute_script(script, name))


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> Iterator[Pages]:
    """Two cells of two seeds, hand-made, one of which has diverged; one server, one browser."""
    folder = tmp_path_factory.mktemp("pages")
    store = make_sweep(folder)
    for number, entry in enumerate(store.entries()):
        state = State.DIVERGED if number == 3 else State.DONE
        finish(store, entry, {"exact_w1": 0.5 + number}, state=state, epochs=entry.epochs)
    uri = f"sqlite:///{store.runs_dir / 'mlflow.db'}"
    shutil.copy(empty_database, store.runs_dir / "mlflow.db")
    Mirror(store, uri).finish()
    port = free_port()
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1280,800"):
        options.add_argument(argument)
    with started("ui", "hand", "--port", port, cwd=folder) as running:
        browser = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
        try:
            wait_until(lambda: page(f"http://127.0.0.1:{port}/health") == "OK")
            yield Pages(browser, addresses(running), store)
        finally:
            browser.quit()
            os.kill(running.process.pid, signal.SIGINT)
            running.end()


def addresses(running: Running) -> list[str]:
    """The two that are printed before anything else, while the command goes on."""
    assert running.process.stdout is not None
    lines = [running.process.stdout.readline() for _ in range(2)]
    return [re.search(r"http\S+", line)[0] for line in lines]  # type: ignore[index]


def test_from_the_list_of_sweeps_one_comes_to_the_runs_and_not_to_traces(pages: Pages) -> None:
    pages.open(pages.server)
    pages.link("Experiments").click()
    pages.link("hand").click()
    pages.link("hand")  # the sweep's own run
    assert "/runs?" in pages.browser.current_url
    assert "workflowType=machine_learning" in pages.browser.current_url
    assert "MLflow Assistant" not in pages.text()


def test_the_trials_lie_below_their_sweep(pages: Pages) -> None:
    pages.open(f"{pages.server}/#/experiments/1/runs")
    pages.link("hand")
    names = names_of(pages.store)
    assert not any(name in pages.text() for name in names)
    pages.until(lambda: pages.all(".ag-row button"))[0].click()
    pages.until(lambda: names <= {link.get_attribute("textContent") for link in pages.all(".ag-row a")})


def test_the_first_address_has_the_means_of_cells_over_time(pages: Pages) -> None:
    pages.open(pages.printed[0])
    entries = pages.store.entries()
    cells = sorted({entry.label for entry in entries})
    means = [0.5 + mean(n for n, entry in enumerate(entries) if entry.label == cell) for cell in cells]
    lines = pages.lines()
    assert sorted(values for _, _, values in lines) == [[9.0, pytest.approx(value)] for value in sorted(means)]
    assert all(seconds[0] == 0 <= seconds[1] for _, seconds, _ in lines)
    assert pages.until(lambda: f"{cells[0]} (exact_w1)" in pages.text()), "the legend"


def test_the_second_address_has_trials_over_seconds_of_training_and_steps_through_samples(pages: Pages) -> None:
    pages.open(pages.printed[1])
    expected = [  # the best one first; three epochs of a quarter of a second
        [f"{entry.label} seed={entry.seed}", [0.0, 0.75], [9.0, 0.5 + number]]
        for number, entry in enumerate(pages.store.entries())
    ]
    assert pages.lines() == expected
    first = pages.store.entries()[0].trial_id
    pages.picture(f"images/samples+step+000003+timestamp+0+{first}")
    slider = pages.until(lambda: pages.all("[role=slider]"))[0]
    slider.send_keys(Keys.ARROW_LEFT)
    pages.picture(f"images/samples+step+000000+timestamp+0+{first}")


def test_both_are_in_the_menu_of_views(pages: Pages) -> None:
    pages.open(f"{pages.server}/#/experiments/1/runs")
    pages.until(lambda: pages.all("[data-testid=saved-views-trigger]"))[0].click()
    for name in ("Methods: exact_w1 over time", "Trials: exact_w1 over training_seconds, samples"):
        assert pages.until(lambda: name in pages.text())  # noqa: B023


def test_a_run_has_its_pictures_among_its_artifacts(pages: Pages) -> None:
    uri = f"sqlite:///{pages.store.runs_dir / 'mlflow.db'}"
    (run, *_) = quiet_client(uri).search_runs(["1"], "tags.state = 'DONE'")
    pages.open(f"{pages.server}/#/experiments/1/runs/{run.info.run_id}/artifacts/images")
    name = f"samples+step+000003+timestamp+0+{run.data.tags['orchestrator.trial_id']}.png"
    pages.until(lambda: [item for item in pages.all("li, span, div") if item.text == name])[-1].click()
    shown = pages.until(lambda: [picture for picture in pages.all("img") if picture.size["width"] >= 200])
    assert shown


def names_of(store: SweepStore) -> set[str]:
    return {f"{entry.label} seed={entry.seed}" for entry in store.entries()}
