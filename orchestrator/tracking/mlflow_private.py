"""Every use of a private or undocumented part of MLflow, each with its reason. A test lets no other module touch one.

Some of these parts are Python, others are formats that MLflow's pages read: tags, file names, addresses, what the
browser keeps. Importing this module checks that MLflow has the Python parts. It looks into MLflow's files, because
importing MLflow takes seconds and ``orchestrator ui`` never needs it. A test looks for the formats in MLflow's pages.

Everything here was seen to work with MLflow 3.17.0, 3.17.2 and 3.18.0.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from orchestrator.errors import unsuitable

if TYPE_CHECKING:
    from fastapi import FastAPI
    from mlflow import MlflowClient
    from mlflow.models import Model

VERSIONS = ">=3.17,<3.19"
"""The versions that work, as ``pyproject.toml`` has them."""

NEEDED: dict[str, tuple[str, ...]] = {
    "pytorch/__init__.py": ('"model.pt2"', 'pytorch_conf["model_data"]', 'pytorch_conf["pytorch_version"]'),
    "server/__init__.py": ("REL_STATIC_DIR = ", "app = Flask("),
    "server/fastapi_app.py": ("app = create_fastapi_app(",),
    "server/js/build/index.html": ("<head>",),
    "store/db_migrations/versions/451aebb31d03_add_metric_step.py": (
        'revision = "451aebb31d03"',
        "down_revision = None",
    ),
    "store/tracking/sqlalchemy_store.py": (
        "    _engine_map: dict[",
        "def __init__(self, db_uri, default_artifact_root",
    ),
    "tracking/client.py": ("def log_outputs(", "images/{sanitized_key}+step+{step}+timestamp+{timestamp}+"),
    "utils/credentials.py": ("def get_default_host_creds(",),
    "utils/mlflow_tags.py": ('"mlflow.loggedImages"',),
    "utils/rest_utils.py": ("def http_request(", "    max_retries=None,", "    raise_on_status=True,"),
}
"""What is used: files of MLflow, and what must stand in them."""

PICTURES_TAG = "mlflow.loggedImages"
"""The tag by which MLflow's pages know that a run has pictures. MLflow 3.17.0 to 3.18.0."""

THUMBNAIL = 256
"""The longer side of the small pictures in MLflow's charts, in pixels, as its client makes them. 3.17.0 to 3.18.0."""

VIEW_TAG = "mlflow.sharedViewState."
"""How the tags of an experiment begin that are saved views; the rest is the view's key. MLflow 3.17.0 to 3.18.0."""

OWN_SECTIONS = ("Model metrics", "System metrics")
"""MLflow's own sections of charts, which it wants to be the last ones of a view. MLflow 3.17.0 to 3.18.0."""

REMEMBERED = {"mlflow.workflowType_v1": '"machine_learning"', "mlflow.assistant.fab.autoOpenedOnFirstLoad_v1": "true"}
"""What MLflow's pages keep in the browser: "model training" at the top left, and that the assistant has been shown.

Reason: MLflow has no setting for either. MLflow 3.17.0 to 3.18.0."""


NOT_FROM_HERE = {"PYTHONSAFEPATH": "1", "UVICORN_APP_DIR": os.devnull}
"""The environment in which MLflow's server, and uvicorn, which it starts, import nothing from the working directory.

Reason: uvicorn puts its ``--app-dir`` before all else into the search path for modules, and that is the working
directory unless it is told. No module can lie in a file. MLflow 3.17.0 to 3.18.0."""


def saved_view(name: str, state: Mapping[str, Any]) -> str:
    """The content of a :data:`VIEW_TAG`: JSON in JSON, with the names that the page's own state has.

    Reason: MLflow's pages save views, its client has no call for it. MLflow 3.17.0 to 3.18.0.
    """
    return json.dumps({"name": name, "createdAt": 0, "updatedAt": 0, "state": json.dumps(state)})


def was_edited(view: str) -> bool:
    """Whether a user has saved a view of :func:`saved_view` again in MLflow's pages, which then note the time.

    Reason: as for :func:`saved_view`. MLflow 3.17.0 to 3.18.0.
    """
    try:
        return bool(json.loads(view)["updatedAt"])
    except (ValueError, TypeError, KeyError):
        return True


def experiments_address(server: str) -> str:
    """The address of the list of experiments, for training. ``server`` is ``http://HOST:PORT``.

    Reason: without the query MLflow opens an experiment on its traces of language models. MLflow 3.17.0 to 3.18.0.
    """
    return f"{server}/#/experiments?workflowType=machine_learning"


def charts_address(server: str, experiment_id: str, view: str) -> str:
    """The address of the charts of a saved view, by its key. ``server`` is ``http://HOST:PORT``.

    Reason: MLflow documents no addresses of its pages. MLflow 3.17.0 to 3.18.0.
    """
    query = urlencode({"workflowType": "machine_learning", "compareRunsMode": "CHART", "viewStateShareKey": view})
    return f"{server.rstrip('/')}/#/experiments/{experiment_id}/runs?{query}"


def picture_names(key: str, step: str, own: str) -> tuple[str, str, str]:
    """The folder of a run's pictures, and the names of a picture and of its small copy.

    Reason: ``MlflowClient.log_image`` puts random digits where ``own`` is. There a second time would be a second
    picture. MLflow 3.17.0 to 3.18.0.
    """
    name = f"{key}+step+{step}+timestamp+0+{own}"
    return "images", f"{name}.png", f"{name}+compressed.webp"


def log_output(client: MlflowClient, run_id: str, model_id: str, step: int) -> None:
    """Makes a model an output of a run.

    Reason: ``log_outputs`` has no documentation, and no other call of the client does it. MLflow 3.17.0 to 3.18.0.
    """
    from mlflow.entities import LoggedModelOutput

    client.log_outputs(run_id, [LoggedModelOutput(model_id, step)])


def health(uri: str) -> int:
    """The HTTP status with which a server answers whether it is up. Raises OSError if none answers within seconds.

    The question has everything that MLflow's client sends and checks: certificates, proxies, passwords, tokens.

    Reason: the client has no call for it, and its calls repeat for longer than a user should wait. MLflow 3.17.0 to
    3.18.0.
    """
    from mlflow.exceptions import MlflowException
    from mlflow.utils.credentials import get_default_host_creds
    from mlflow.utils.rest_utils import http_request

    try:
        answer = http_request(
            get_default_host_creds(uri), "/health", "GET", max_retries=0, timeout=5, raise_on_status=False
        )
    except MlflowException as error:
        if isinstance(cause := error.__cause__ or error.__context__, OSError):
            raise cause from None
        raise OSError(str(error)) from None
    return int(answer.status_code)


def installed() -> str:
    """MLflow's version."""
    return importlib.metadata.version("mlflow")


def schema_versions() -> tuple[str, frozenset[str]]:
    """The version of a database's tables that MLflow needs, and every version that it knows, without importing it.

    Reason: MLflow has no call for it, and tells a wrong version only by an error in many words. MLflow 3.17.0 to
    3.18.0.
    """
    texts = [file.read_text(encoding="utf-8") for file in (_folder() / "store/db_migrations/versions").glob("*.py")]
    known = {found for text in texts for found in re.findall(r'^revision = "(\w+)"', text, re.MULTILINE)}
    before = {found for text in texts for found in re.findall(r'^down_revision = "(\w+)"', text, re.MULTILINE)}
    (latest,) = known - before
    return latest, frozenset(known)


def make_tables(uri: str, artifacts: str) -> None:
    """Makes MLflow's tables and its experiment ``Default``, whose ``artifacts`` are a URI, and closes the database.

    Reason: MLflow makes them with its first question to a database and then keeps the database open, but the file is
    to be renamed. ``mlflow db upgrade`` makes no experiment. MLflow 3.17.0 to 3.18.0.
    """
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    try:
        SqlAlchemyStore(uri, artifacts)
    finally:
        if (engine := SqlAlchemyStore._engine_map.pop(uri, None)) is not None:
            engine.dispose()


def write_model(folder: Path, model: Model, torch_version: str) -> None:
    """Writes ``MLmodel`` for the graph in ``data/model.pt2`` of a folder, as a model of ``mlflow.pytorch``.

    Reason: ``mlflow.pytorch.save_model`` writes the same, but traces the graph for each trial anew, in this process.
    MLflow 3.17.0 to 3.18.0.
    """
    from mlflow import pyfunc

    model.add_flavor("pytorch", model_data="data", pytorch_version=torch_version)
    pyfunc.add_to_model(model, loader_module="mlflow.pytorch", data="data", model_config={"device": "cpu"})
    model.save(folder / "MLmodel")


def first_page() -> str:
    """The HTML of MLflow's first page, which loads all others. MLflow 3.17.0 to 3.18.0.

    Reason: MLflow has no way to add something to its pages.
    """
    from mlflow.server import REL_STATIC_DIR, app

    return (Path(app.root_path) / REL_STATIC_DIR / "index.html").read_text()


def server_with(page: Callable[[], Any]) -> FastAPI:
    """MLflow's server, with ``page`` in the place of its first page.

    Reason: MLflow has no setting for it. The last of its routes takes every path, so ours comes before all of them.
    MLflow 3.17.0 to 3.18.0.
    """
    from mlflow.server.fastapi_app import app as server

    server.add_api_route("/", page, response_model=None)
    server.router.routes.insert(0, server.router.routes.pop())
    return server


def _folder() -> Path:
    """Where MLflow is installed."""
    spec = importlib.util.find_spec("mlflow")  # imports nothing
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent


def _missing() -> Iterator[str]:
    """What MLflow does not have of :data:`NEEDED`."""
    for name, texts in NEEDED.items():
        file = _folder() / name
        content = file.read_text(encoding="utf-8") if file.exists() else ""
        yield from (f"{text} in mlflow/{name}" for text in texts if text not in content)


if missing := list(_missing()):
    raise unsuitable("mlflow", VERSIONS, missing)
