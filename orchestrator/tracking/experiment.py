"""A sweep's experiment in MLflow, and which runs in it belong to this store.

Another runs directory may have a sweep of the same name in the same MLflow. Its experiment and its runs bear the id of
its store (see ``store.identity``): they are neither read nor changed nor deleted, and this store's experiment gets the
id into its name. Runs of older versions bear no id. They belong to the store with the attempt that began them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from orchestrator.store.entry import TRIAL_ID
from orchestrator.store.identity import identify
from orchestrator.store.sweep import SweepStore
from orchestrator.store.trial import TrialStore
from orchestrator.tracking.address import is_own_file

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment, Run

STORE_TAG = "orchestrator.store"
PLACE_TAG = "orchestrator.place"
SWEEP_TAG = "orchestrator.sweep"
TRIAL_TAG = "orchestrator.trial_id"
PARENT_TAG = "mlflow.parentRunId"
DEFAULT_EXPERIMENT = "0"
"""The id of the experiment ``Default``, which every MLflow has."""


class SweepExperiment:
    """The experiment of one store, which is found or made. ``identity`` is the store's."""

    def __init__(self, client: MlflowClient, store: SweepStore, uri: str) -> None:
        self._client = client
        self._store = store
        self._uri = uri
        self.identity = identify(store)
        self.id, self._title, self._others_place = self._find()

    def note(self) -> str | None:
        """What the user should know: MLflow has a sweep of this name that belongs to another runs directory."""
        if self._title == self._store.name:
            return None
        where = f" ({self._others_place})" if self._others_place else ""
        return (
            f"MLflow already has '{self._store.name}' of another store{where}, which stays as it is; this sweep's "
            f"experiment is '{self._title}'. For a name of its own, run the sweep file with --name"
        )

    def runs(self) -> list[Run]:
        """The runs of this store. Those of an older version get the store's id."""
        runs = self._search_runs(self.id)
        unmarked = self._unmarked(runs)
        for run in unmarked:
            self._client.set_tag(run.info.run_id, STORE_TAG, self.identity.id)
        return [run for run in runs if run.data.tags.get(STORE_TAG) == self.identity.id] + unmarked

    def _find(self) -> tuple[str, str, str | None]:
        """Finds or makes the experiment. Returns its id and name, and the place of another store that has the name."""
        name, location = self._store.name, None
        if self._uri.startswith("sqlite"):  # without a server the artifacts lie beside the database
            location = (self._store.runs_dir / "mlflow-artifacts" / name).resolve().as_uri()
        titles = self._titles()
        found = {title: self._client.get_experiment_by_name(title) for title in titles}
        if any(each is not None and self._was_taken_over(each) for each in found.values()):
            self.identity = identify(self._store, anew=True)
            titles = self._titles()
            found = {title: self._client.get_experiment_by_name(title) for title in titles}
        first = found[name]
        place = None if first is None else first.tags.get(PLACE_TAG)
        ours = {title: each for title, each in found.items() if each is not None and self._is_ours(each, location)}
        for title, each in ours.items():
            if each.lifecycle_stage != "deleted" and location in (None, each.artifact_location):
                for key, value in self._marks().items():
                    if each.tags.get(key) != value:
                        self._client.set_experiment_tag(each.experiment_id, key, value)
                return each.experiment_id, title, place
        title = next(title for title in titles if found[title] is None or title in ours)
        if title in ours:
            # The experiment was deleted in MLflow, but its name is still taken; or the runs directory was moved, and
            # MLflow keeps absolute paths. In both cases it is renamed and a new one is made.
            before, old = "it was moved", ours[title].experiment_id
            if ours[title].lifecycle_stage == "deleted":
                before = "it was deleted"
                self._client.restore_experiment(old)
            self._client.rename_experiment(old, f"{title} before {before} ({old})")
            self._client.delete_experiment(old)
        made = self._client.create_experiment(title, artifact_location=location, tags=self._marks())
        return made, title, place

    def _titles(self) -> tuple[str, str]:
        """The names that the experiment may have: the sweep's, and one with the store's id if another store has it."""
        return self._store.name, f"{self._store.name} ({self.identity.id})"

    def _marks(self) -> dict[str, str]:
        """The tags of an experiment that say whose it is."""
        return {STORE_TAG: self.identity.id, PLACE_TAG: self.identity.places[-1]}

    def _was_taken_over(self, experiment: Experiment) -> bool:
        """Whether a copy of this store has written into its experiment, at a place where this store has never been."""
        known = experiment.tags.get(STORE_TAG) == self.identity.id
        return known and experiment.tags.get(PLACE_TAG, self.identity.places[-1]) not in self.identity.places

    def _is_ours(self, experiment: Experiment, location: str | None) -> bool:
        """Whether this store may write into an experiment.

        In the database of its own runs directory it also owns what the directory had before it was copied. An
        experiment that bears no id is its own if it has a run of this store, or nothing at all.
        """
        from mlflow.entities import ViewType

        if experiment.experiment_id == DEFAULT_EXPERIMENT:
            return False
        owner = experiment.tags.get(STORE_TAG)
        own_file = is_own_file(self._uri, self._store.runs)
        if owner is not None:
            return owner == self.identity.id or (own_file and owner in self.identity.copy_of)
        runs = self._search_runs(experiment.experiment_id, deleted=True)
        if self._unmarked(runs) or any(run.data.tags.get(STORE_TAG) == self.identity.id for run in runs):
            return True
        somebodys = self._client.search_runs([experiment.experiment_id], run_view_type=ViewType.ALL, max_results=1)
        return not somebodys and (own_file or location in (None, experiment.artifact_location))

    def _search_runs(self, experiment_id: str, *, deleted: bool = False) -> list[Run]:
        """Every run of a sweep of this name, whichever store it belongs to."""
        from mlflow.entities import ViewType

        view = ViewType.ALL if deleted else ViewType.ACTIVE_ONLY
        where = f"tags.`{SWEEP_TAG}` = '{self._store.name}'"
        runs: list[Run] = []
        token = None
        while True:
            page = self._client.search_runs([experiment_id], where, view, max_results=1000, page_token=token)
            runs += page
            token = page.token
            if not token:
                return runs

    def _unmarked(self, runs: Sequence[Run]) -> list[Run]:
        """The runs without an id that were made for this store, by an older version for example.

        Their parent run has this store's id, or they began when an attempt of their trial did.
        """
        unmarked = [run for run in runs if STORE_TAG not in run.data.tags]
        marked = {run.info.run_id for run in runs if run.data.tags.get(STORE_TAG) == self.identity.id}
        ours = [
            run
            for run in unmarked
            if run.data.tags.get(PARENT_TAG) in marked
            or run.info.start_time in self._starts(run.data.tags.get(TRIAL_TAG))
        ]
        parents = {run.data.tags.get(PARENT_TAG) for run in ours}
        used = {run.data.tags.get(PARENT_TAG) for run in runs}
        return ours + [
            run
            for run in unmarked
            if TRIAL_TAG not in run.data.tags and (run.info.run_id in parents or run.info.run_id not in used)
        ]

    def _starts(self, trial_id: str | None) -> set[int]:
        """When the attempts of a trial began with which a run may have been made, in ms; also before a restart."""
        if trial_id is None or not TRIAL_ID.fullmatch(trial_id):
            return set()
        trial = self._store.trial(trial_id)
        folders = [trial.path, *(trial.path / "attempts").glob("*")]
        return {int(one.started * 1000) for folder in folders for one in TrialStore(folder).status().attempts}
