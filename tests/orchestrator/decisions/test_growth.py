"""A plan that grows: the same trials in whatever order they end, and wherever the driver dies."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from command_line import CommandLine
from hand_made import plan_file, write_file
from pretended_growth import RACED, SEARCHED, Score, bowl, decided, drive, grown_sweep, steps

import orchestrator
from orchestrator.errors import UserError
from orchestrator.store.selection import Selection
from orchestrator.store.states import State
from orchestrator.store.sweep import Entry, SweepStore

KINDS = [pytest.param(SEARCHED, bowl, id="search"), pytest.param(RACED, steps, id="race")]


def run(folder: Path, text: str, score: Score, order: int = 0) -> SweepStore:
    store, plan = grown_sweep(folder, text)
    code, printed = drive(store, score, order=order, plan=plan)
    assert code == 0, printed
    return store


def trials(store: SweepStore) -> Counter[str]:
    return Counter(entry.trial_id for entry in store.entries())


@pytest.mark.parametrize(("text", "score"), KINDS)
def test_the_order_in_which_trials_end_decides_nothing(tmp_path: Path, text: str, score: Score) -> None:
    first = run(tmp_path / "a", text, score, order=1)
    other = run(tmp_path / "b", text, score, order=2)
    assert decided(first) == decided(other)
    assert trials(first) == trials(other)
    assert set(trials(first).values()) == {1}


@pytest.mark.parametrize(("text", "score"), KINDS)
def test_a_driver_that_dies_again_and_again_comes_to_the_same_plan(tmp_path: Path, text: str, score: Score) -> None:
    undisturbed = run(tmp_path / "a", text, score)
    store, plan = grown_sweep(tmp_path / "b", text)
    code, deaths = None, 0
    while code is None:
        code, printed = drive(store, score, order=deaths, deaths=5, plan=plan if deaths == 0 else None)
        deaths += 1
        log = store.decisions_file
        if deaths % 2 and log.exists():  # it died while it wrote a decision
            log.write_bytes(log.read_bytes() + b'{"kind": "search", "about": {"vari')
    assert (code, deaths > 5) == (0, True), printed
    assert decided(store) == decided(undisturbed)
    assert trials(store) == trials(undisturbed)


@pytest.mark.parametrize(("text", "score"), KINDS)
def test_a_decision_that_was_lost_is_made_again(tmp_path: Path, text: str, score: Score) -> None:
    """A driver may die before a decision is on the disk, and after the directories of its trials are there."""
    store = run(tmp_path, text, score)
    before, log = decided(store), store.decisions_file.read_bytes()
    for kept in (0, log.count(b"\n") // 2, log.count(b"\n") - 1):
        store.decisions_file.write_bytes(b"".join(log.splitlines(keepends=True)[:kept]))
        code, _ = drive(store, score)
        assert (code, decided(store)) == (0, before)


def test_a_proposal_rests_on_what_was_fixed_beforehand(tmp_path: Path) -> None:
    store = run(tmp_path, SEARCHED, bowl)
    made = [each for each in decided(store) if each["kind"] == "search"]
    assert len(made) == 2 * 16
    for each in made:
        number = each["about"]["proposal"]
        assert each["rests_on"]["proposals"] == (0 if number < 10 else number - 2)  # parallel: 3
        assert [entry["seed"] for entry in each["trials"]] == [0, 1]
    for variant in ({"critic_iterations": 1}, {"critic_iterations": 5}):
        group = sorted(
            (each for each in made if each["about"]["axes"] == variant), key=lambda e: e["about"]["proposal"]
        )
        seen = [number for each in group for number in each["rests_on"]["seen"]]
        assert seen == [str(number) for number in range(13)]  # each once, and in order


def test_all_cells_begin_with_the_same_proposals(tmp_path: Path) -> None:
    made = [each["about"] for each in decided(run(tmp_path, SEARCHED, bowl)) if each["kind"] == "search"]
    one, other = (
        [about["setting"] for about in sorted(made, key=lambda each: each["proposal"]) if about["axes"] == axes][:10]
        for axes in ({"critic_iterations": 1}, {"critic_iterations": 5})
    )
    assert one == other


def test_a_search_finds_the_bottom_of_the_bowl(tmp_path: Path) -> None:
    confirmed = [each for each in decided(run(tmp_path, SEARCHED, bowl)) if each["kind"] == "confirm"]
    assert len(confirmed) == 2
    for each in confirmed:
        [cell] = each["rests_on"]["cells"]
        assert cell["axes"]["penalty.weight"] == 1
        assert 2e-4 < cell["axes"]["critic.lr"] < 5e-3
        assert [entry["seed"] for entry in each["trials"]] == [1000, 1001, 1002]
        assert {entry["setting"] for entry in each["trials"]} == {each["trials"][0]["setting"]}


def test_a_race_gives_seeds_only_to_cells_that_may_still_be_the_best(tmp_path: Path) -> None:
    store = run(tmp_path, RACED, steps)
    seeds = Counter(entry.axes["penalty.weight"] for entry in store.entries() if not entry.stage)
    assert seeds[1] == seeds[2] == 12  # they are alike, so that only the bound ends their race
    assert sorted(seeds.values(), reverse=True) == [seeds[weight] for weight in (1, 2, 3, 4, 5, 6)]
    assert seeds[6] < 12
    looks = sorted((each for each in decided(store) if each["kind"] == "race"), key=lambda each: each["about"]["look"])
    assert [each["about"]["look"] for each in looks] == list(range(len(looks)))
    assert looks[-1]["about"]["ended"] == "the cells that are left have the most seeds"
    assert sum(1 - each["about"]["level"] for each in looks) <= 0.05
    confirmed = [entry for entry in store.entries() if entry.stage == "confirm"]
    assert sorted({entry.axes["penalty.weight"] for entry in confirmed}) == [1, 2]


def test_a_race_ends_when_one_cell_is_left(tmp_path: Path) -> None:
    def far_apart(config: Any, entry: Entry) -> float:
        return steps(config, entry) + 10 * (config["penalty"]["weight"] > 1)

    store = run(tmp_path, RACED, far_apart)
    last = [each for each in decided(store) if each["kind"] == "race" and each["about"]["ended"]]
    assert [each["about"]["ended"] for each in last] == ["one cell is left"]
    assert len([entry for entry in store.entries() if not entry.stage]) < 6 * 12 / 2


def test_the_trials_of_a_race_have_a_bound(tmp_path: Path) -> None:
    text = RACED.replace("most: 12}", "most: 12, trials: 30}")
    store = run(tmp_path, text, steps)
    assert len([entry for entry in store.entries() if not entry.stage]) <= 30
    race = [each["about"]["ended"] for each in decided(store) if each["kind"] == "race"]
    assert [ended for ended in race if ended] == ["the trials of the race are spent"]


def test_a_cell_of_which_a_seed_diverged_gets_no_further_seeds(tmp_path: Path) -> None:
    def one_diverges(config: Any, entry: Entry) -> float | State:
        return State.DIVERGED if (config["penalty"]["weight"], entry.seed) == (1, 1) else steps(config, entry)

    store = run(tmp_path, RACED, one_diverges)
    seeds = Counter(entry.axes["penalty.weight"] for entry in store.entries() if not entry.stage)
    assert seeds[1] == 3
    assert seeds[2] > 3
    assert not [entry for entry in store.entries() if entry.stage == "confirm" and entry.axes["penalty.weight"] == 1]


def test_a_search_goes_around_what_diverges(tmp_path: Path) -> None:
    def high_diverges(config: Any, entry: Entry) -> float | State:
        return State.DIVERGED if config["critic"]["lr"] > 1e-3 else bowl(config, entry)

    store = run(tmp_path, SEARCHED, high_diverges)
    late = [entry for entry in store.entries() if entry.stage == "search" and (entry.proposal or 0) >= 13]
    assert late
    assert sum(entry.axes["critic.lr"] > 1e-3 for entry in late) < len(late) / 2
    best = [entry for entry in store.entries() if entry.stage == "confirm"]
    assert all(entry.axes["critic.lr"] <= 1e-3 for entry in best)


def test_a_search_goes_on_without_what_failed_for_good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.engine.queue.LONGEST_BACK_OFF", 0.001)

    def third_fails(config: Any, entry: Entry) -> float | State:
        return State.FAILED if entry.proposal == 2 and entry.stage != "confirm" else bowl(config, entry)

    store, plan = grown_sweep(tmp_path, SEARCHED)
    code, printed = drive(store, third_fails, plan=plan)
    assert code == 1, printed
    made = decided(store)
    assert [each["rests_on"]["seen"]["2"] for each in made if "2" in each["rests_on"].get("seen", ())] == [
        ["failed", None, None]
    ] * 2
    assert len([each for each in made if each["kind"] == "search"]) == 2 * 16
    code, printed = drive(store, bowl)  # now they run
    assert (code, decided(store)) == (0, made), printed


def test_a_finite_space_ends_a_search(tmp_path: Path) -> None:
    text = SEARCHED.replace('critic.lr: "tag(log, interval(1e-5, 1e-1))", ', "")
    store = run(tmp_path, text, bowl)
    proposals = {(entry.axes["critic_iterations"], entry.axes["penalty.weight"]) for entry in store.entries()}
    assert proposals == {(1, 1), (1, 10), (5, 1), (5, 10)}
    exhausted = [each for each in decided(store) if "exhausted" in each["about"]]
    assert [each["about"]["proposal"] for each in exhausted] == [2, 2]


def test_more_proposals_go_on_from_what_was_decided(tmp_path: Path) -> None:
    store = run(tmp_path, SEARCHED, bowl)
    before = [each for each in decided(store) if each["kind"] == "search"]
    more = plan_file(write_file(tmp_path, SEARCHED.replace("trials: 16", "trials: 20")))
    code, printed = drive(store, bowl, plan=more)
    assert code == 0, printed
    after = [each for each in decided(store) if each["kind"] == "search"]
    assert len(after) == 2 * 20
    assert [each for each in after if each["about"]["proposal"] < 16] == before
    longer = run(tmp_path / "at once", SEARCHED.replace("trials: 16", "trials: 20"), bowl)
    assert [each for each in decided(longer) if each["kind"] == "search"] == after


def test_a_larger_most_goes_on_from_what_was_decided(tmp_path: Path) -> None:
    store = run(tmp_path, RACED, steps)
    more = plan_file(write_file(tmp_path, RACED.replace("most: 12", "most: 20")))
    code, printed = drive(store, steps, plan=more)
    assert code == 0, printed
    seeds = Counter(entry.axes["penalty.weight"] for entry in store.entries() if not entry.stage)
    assert seeds[1] == 20
    race = [each["about"] for each in decided(store) if each["kind"] == "race"]
    assert [about["seeds"] for about in race if "goes_on" in about] == [20]
    looks = {about["look"]: about["level"] for about in race if "goes_on" not in about}
    assert len(looks) == len(race) - 1
    assert sum(1 - level for level in looks.values()) <= 0.05


def test_what_changes_the_meaning_of_decisions_asks_for_another_name(tmp_path: Path) -> None:
    store = run(tmp_path, SEARCHED, bowl)
    longer = plan_file(write_file(tmp_path, SEARCHED.replace("budget=40", "budget=60")))
    with pytest.raises(UserError, match=r"has made 34 decisions, and another configuration of .* another name"):
        drive(store, bowl, plan=longer)


def test_nothing_is_decided_while_only_some_trials_are_to_run(tmp_path: Path) -> None:
    store, plan = grown_sweep(tmp_path, SEARCHED)
    drive(store, bowl, deaths=4, plan=plan)
    before = decided(store)
    pending = Selection(only=frozenset({State.PENDING, State.LOST}))
    code, printed = drive(store, bowl, selection=pending)
    assert "Nothing is decided in this run" in printed
    assert all(store.trial(entry.trial_id).status().state is State.DONE for entry in store.entries())
    assert (code, decided(store)) == (1, before)  # the first ten proposals of each cell, on which the next ones rest
    assert "decisions are still to be made" in printed
    code, _ = drive(store, bowl)
    assert (code, len(decided(store))) == (0, 2 * 16 + 2)


def test_a_metric_that_comes_back_with_its_search_is_the_same_one(tmp_path: Path) -> None:
    """Decisions say by which metric they were made: the plan in between had no search, and another metric."""
    store = run(tmp_path, SEARCHED, bowl)
    without = SEARCHED.partition("search:")[0] + "compare: {metric: critic_loss, mode: min}\n"
    store.write_plan(plan_file(write_file(tmp_path, without)))
    other = plan_file(write_file(tmp_path, SEARCHED.replace("exact_w1, mode: min", "exact_w1, mode: max")))
    with pytest.raises(UserError, match=r"another metric than exact_w1 \(min\) would change what they mean"):
        drive(store, bowl, plan=other)


def test_a_race_that_goes_on_is_confirmed_again(tmp_path: Path) -> None:
    store = run(tmp_path, RACED, steps)

    def the_second_is_better_later(config: Any, entry: Entry) -> float:
        return steps(config, entry) - 3 * (config["penalty"]["weight"] == 2 and 12 <= entry.seed < 1000)

    more = plan_file(write_file(tmp_path, RACED.replace("most: 12", "most: 20").replace("best: 2", "best: 1")))
    code, printed = drive(store, the_second_is_better_later, plan=more)
    assert code == 0, printed
    first, again = (
        [cell["axes"]["penalty.weight"] for cell in each["rests_on"]["cells"]]
        for each in sorted((e for e in decided(store) if e["kind"] == "confirm"), key=lambda e: e["about"]["looks"])
    )
    assert (sorted(first), again) == ([1, 2], [2])


def test_two_searches_that_propose_the_same_trial_both_learn_of_it(tmp_path: Path) -> None:
    """Two variants that differ in their sampler alone: their first proposals are the same random ones."""
    head, _, rest = SEARCHED.partition("grid:")
    search = "search:" + rest.partition("search:")[2].partition("confirm:")[0].rstrip()
    nested = "".join(f"    {line}\n" for line in search.splitlines())
    text = f"{head}seeds: 2\nvariants:\n  one:\n{nested}  other:\n{nested.replace('tpe', 'gp')}"
    text += "compare: {metric: exact_w1, mode: min}\n" if "compare:" not in text else ""
    text += "confirm: {best: 1, seeds: 3}\n"
    store = run(tmp_path, text, bowl)
    made = [each for each in decided(store) if each["kind"] == "search"]
    assert Counter(each["about"]["variant"] for each in made) == {"one": 16, "other": 16}
    ids = Counter(entry["trial_id"] for each in made for entry in each["trials"])
    assert list(ids.values()).count(2) >= 20  # ten shared proposals of two seeds
    assert set(trials(store).values()) == {1}


@pytest.mark.parametrize("command", ["export", "report", "plot", "status", "prune"])
def test_a_plan_without_any_trial_is_read(tmp_path: Path, command_line: CommandLine, command: str) -> None:
    """A driver may die before the first decision is made."""
    store, plan = grown_sweep(tmp_path, SEARCHED)
    store.make()
    store.write_plan(plan)
    code, out, err = command_line(command, "grown", "--runs-dir", str(store.runs_dir))
    assert (code, "Traceback" in out + err) == (0 if command in ("status", "prune") else 2, False)
    assert "decided" in out + err or "has ended" in err or "has finished an epoch" in err or command == "prune"
    trials, epochs = orchestrator.load(store.path)
    assert (len(trials), len(epochs)) == (0, 0)
