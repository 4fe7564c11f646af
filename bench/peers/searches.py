"""The same search by us and by common alternatives: ``python -m bench.peers.searches``.

The search has 14 proposals of TPE: learning rates of the critic of WGAN-GP on digits. Every proposal is trained for 200
critic iterations (10 epochs) with one seed, evaluated and stored in a checkpoint every five epochs. Every contender
trains with ``trainers``, on as many workers as there are processors.

- ``orchestrator sweep`` with ``search`` and ``confirm``, then ``orchestrator resume``;
- Ray Tune with ``OptunaSearch`` and ``Tuner.restore`` (``ray_tune_search.py``);
- Optuna alone, plain and with its heartbeat and retries (``optuna_study.py``).

Every contender searches three times: undisturbed, undisturbed once more, and killed (``kill -9`` of the command's
process) when half of the proposals have their result, then continued in its own way. What a killed command leaves is
ended after five seconds, by this program or, for ours, by the next command. Counted are:

- **proposals** of the continued search, and how many of them have a result in the end;
- how many proposals of the **second** undisturbed search, and of the **continued** one, the undisturbed search has too,
  to the last digit;
- how many of those common to the undisturbed and the continued search have **equal** FIDs, to the last digit;
- trials of the continued search that **began again**: their first epoch was computed more than once;
- epochs **for nothing**: those computed more than once, and those of proposals that never got a result;
- the **states** of all trials in the contender's own records at the end;
- the best value of the search, and of that setting on **fresh** seeds, where the contender measures it.

No times are taken.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.peers.__main__ import STRAGGLERS_SECONDS, WORKERS, Ours, Peer, begun, timed
from bench.peers.trial import HIGHEST, LOWEST, PROPOSALS

FRESH_SEEDS = 3
BASE = ["trainer=wgan_gp", "device=cpu", "budget=200", "evaluation.times=2", "checkpoint_epochs=5"]
SWEEP = f"""\
name: peers
base: [{", ".join(BASE)}]
search:
  trials: {PROPOSALS}
  sampler: tpe
  parallel: {WORKERS}
  space: {{critic.lr: "tag(log, interval({LOWEST}, {HIGHEST}))"}}
seeds: 1
confirm: {{best: 1, seeds: {FRESH_SEEDS}}}
compare: {{metric: classifier_fid, mode: min}}
"""


@dataclass
class OurSearch(Ours):
    """The search by ``orchestrator``, read from its store."""

    def proposals(self) -> list[float]:
        """The proposed learning rates, in the order of their numbers."""
        return list(self._rates().values())

    def found(self) -> dict[float, float]:
        """The final FID of every proposal that has ended, by its learning rate."""
        return {rate: self._final(trial) for trial, rate in self._rates().items() if self._is_done(trial)}

    def began_again(self, before: Counter[str]) -> int:
        """How many trials that had ended an epoch ``before`` were begun from the start again."""
        attempts = [self._status(trial)["attempts"] for trial, epochs in before.items() if epochs > 0]
        return sum(len(each) > 1 and each[-1]["resumed_at"] == 0 for each in attempts)

    def for_nothing(self, before: Counter[str]) -> int:
        """How many epochs led to no result."""
        unended = sum(epochs for trial, epochs in self.done().items() if not self._is_done(trial))
        return self.computed_again(before) + unended

    def states(self) -> dict[str, int]:
        """How many trials the store has in each state, those of the confirmation included."""
        trials = (file.parent.name for file in self.folder.glob("peers/trials/*/status.json"))
        return Counter(self._status(trial)["state"] for trial in trials)

    def fresh(self) -> list[float]:
        """The FIDs of the best proposal on seeds that the search has not seen."""
        return [self._final(trial["trial_id"]) for each in self._decisions("confirm") for trial in each["trials"]]

    def _rates(self) -> dict[str, float]:
        """The learning rate of every proposal, by its trial."""
        return {
            trial["trial_id"]: decision["about"]["setting"]["critic.lr"]
            for decision in self._decisions("search")
            for trial in decision["trials"]
        }

    def _decisions(self, kind: str) -> list[dict[str, Any]]:
        file = self.folder / "peers" / "decisions.jsonl"
        content = file.read_text() if file.exists() else ""
        lines = content[: content.rfind("\n") + 1].splitlines()  # the command may be writing
        return [decision for decision in map(json.loads, lines) if decision["kind"] == kind]

    def _status(self, trial: str) -> dict[str, Any]:
        status: dict[str, Any] = json.loads((self.folder / "peers" / "trials" / trial / "status.json").read_text())
        return status

    def _is_done(self, trial: str) -> bool:
        try:
            return bool(self._status(trial)["state"] == "DONE")
        except FileNotFoundError:  # it is decided, and not yet stored
            return False

    def _final(self, trial: str) -> float:
        lines = (self.folder / "peers" / "trials" / trial / "metrics.jsonl").read_text().splitlines()
        return float(json.loads(lines[-1])["classifier_fid"])


@dataclass
class PeerSearch(Peer):
    """The search by a peer's script, read from what ``bench.peers.trial`` wrote."""

    def proposals(self) -> list[float]:
        """The learning rates that began to be trained, in this order."""
        file = self.folder / "proposals.log"
        return list(dict.fromkeys(map(float, file.read_text().split() if file.exists() else [])))

    def found(self) -> dict[float, float]:
        """The final FID of every proposal that has ended, by its learning rate."""
        return {float(label): value for label, value in self.results().items()}

    def began_again(self, before: Counter[str]) -> int:
        return sum(times > 1 for line, times in Counter(self._log()).items() if line.endswith("\t1"))

    def for_nothing(self, before: Counter[str]) -> int:
        ended = self.results()
        return len(self._log()) - sum(line.split("\t")[0] in ended for line in set(self._log()))

    def states(self) -> dict[str, int]:
        states: dict[str, int] = json.loads((self.folder / "states.json").read_text())
        return states

    def fresh(self) -> list[float]:
        """Nothing: no peer measures its best proposal on fresh seeds."""
        return []


Contender = OurSearch | PeerSearch


def contenders() -> dict[str, Callable[[Path], Contender]]:
    """Functions that make a contender in a folder, by name."""

    def peer(*words: str) -> Callable[[Path], Contender]:
        return lambda folder: PeerSearch(folder, [f"bench.peers.{words[0]}", str(folder), *words[1:]])

    return {
        "orchestrator": OurSearch,
        "Ray Tune, OptunaSearch": peer("ray_tune_search"),
        "Optuna": peer("optuna_study"),
        "Optuna, heartbeat": peer("optuna_study", "--heartbeat"),
    }


def prepare(folder: Path) -> None:
    """Writes the sweep file, the peers' configuration, and what all trials share: a classifier and features."""
    from orchestrator.sweep.presets import compose
    from trainers.config import TrialConfig
    from trainers.training import Training

    (folder / "peers.yaml").write_text(SWEEP)
    config = TrialConfig.from_dict(compose(BASE))
    (folder / "trials.json").write_text(json.dumps([{"label": "", "config": config.to_dict()}]))
    evaluator = Training(config, cache_dir=folder / "cache").evaluator
    assert evaluator is not None
    evaluator.floor()


def measure(make: Callable[[Path], Contender], prepared: Path, folder: Path) -> dict[str, Any]:
    """Counts for one contender."""
    first, second, killed = (make(shutil.copytree(prepared, folder / name)) for name in ("first", "second", "killed"))
    mark = uuid.uuid4().hex
    timed(first, mark)
    timed(second, mark)
    return count(first, second, killed, disturb(killed))


def disturb(killed: Contender) -> tuple[int, Counter[str]]:
    """Kills a search when half of its proposals have ended, and continues it.

    Returns how many proposals had ended before it was continued, and the epochs of all trials.
    """
    mark = uuid.uuid4().hex
    with begun(killed, mark) as process:
        while len(killed.found()) < PROPOSALS // 2:
            if process.poll() is not None:
                raise RuntimeError((killed.folder / "output.txt").read_text()[-2000:])
            time.sleep(0.2)
        process.kill()
    time.sleep(STRAGGLERS_SECONDS)
    killed.end_what_is_left(mark)
    found = len(killed.found()), killed.done()
    timed(killed, mark, again=True)
    return found


def count(
    first: Contender, second: Contender, killed: Contender, when_killed: tuple[int, Counter[str]]
) -> dict[str, Any]:
    """The counts from two undisturbed searches and a killed one, and what :func:`disturb` returned."""
    ended, before = when_killed
    rates, again = first.proposals(), killed.proposals()
    finals, later = first.found(), killed.found()
    return {
        "results_when_killed": ended,
        "epochs_when_killed": before.total(),
        "proposals": len(again),
        "results": len(later),
        "second": len(set(rates) & set(second.proposals())),
        "continued": len(set(rates) & set(again)),
        "equal": sum(later.get(rate) == value for rate, value in finals.items()),
        "began_again": killed.began_again(before),
        "for_nothing": killed.for_nothing(before),
        "states": killed.states(),
        "best": [min(each.found().values()) for each in (first, second, killed)],
        "fresh": [each.fresh() for each in (first, second, killed)],
        "rates": [rates, second.proposals(), again],
    }


def table(found: dict[str, dict[str, Any]]) -> str:
    """The counts of all contenders in Markdown."""
    columns = [
        "",
        "second",
        "continued",
        "equal",
        "proposals",
        "results",
        "began again",
        "epochs for nothing",
        "states",
    ]
    lines = [columns, ["---"] * len(columns)]
    for contender, each in found.items():
        states = ", ".join(f"{count} {state}" for state, count in each["states"].items() if count)
        first = len(each["rates"][0])
        lines.append(
            [
                contender,
                f"{each['second']} of {first}",
                f"{each['continued']} of {first}",
                f"{each['equal']} of {each['continued']}",
                str(each["proposals"]),
                str(each["results"]),
                str(each["began_again"]),
                f"{each['for_nothing']} beside {each['epochs_when_killed']}",
                states,
            ]
        )
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("contenders", nargs="*", default=list(contenders()), help="names; without: all")
    parser.add_argument("--folder", type=Path, help="keep all files here")
    options = parser.parse_args()
    found: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory(prefix="bench-searches-") as name:
        folder = options.folder or Path(name)
        prepared = folder / "prepared"
        prepared.mkdir(parents=True)
        prepare(prepared)
        for index, contender in enumerate(options.contenders):
            found[contender] = measure(contenders()[contender], prepared, folder / str(index))
            print(json.dumps({"contender": contender, **found[contender]}), flush=True)
    print(f"\n{PROPOSALS} proposals, {WORKERS} workers; load {os.getloadavg()[0]:.1f}\n")
    print(table(found))


if __name__ == "__main__":
    main()
