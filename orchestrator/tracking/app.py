"""MLflow's own server with better defaults for a browser that visits it for the first time.

Unless the browser remembers another choice, MLflow 3 opens an experiment in its view for traces of language models, and
covers a quarter of the page with an assistant's panel. Choices that a user has made are kept.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastapi import FastAPI
    from fastapi.responses import HTMLResponse

REMEMBERED = {"mlflow.workflowType_v1": '"machine_learning"', "mlflow.assistant.fab.autoOpenedOnFirstLoad_v1": "true"}
"""Browser storage of MLflow's pages: "model training" is chosen at the top left, the assistant has been shown."""
SCRIPT = f"""<script>
for (const [key, value] of Object.entries({json.dumps(REMEMBERED)}))
  if (localStorage.getItem(key) === null) localStorage.setItem(key, value);
</script>"""


def make_app() -> FastAPI:
    """The app behind ``mlflow server --app-name orchestrator`` (an entry point of the group ``mlflow.app``)."""
    from fastapi.responses import HTMLResponse
    from mlflow.server import REL_STATIC_DIR, app
    from mlflow.server.fastapi_app import app as server

    page = (Path(app.root_path) / REL_STATIC_DIR / "index.html").read_text().replace("<head>", f"<head>{SCRIPT}", 1)

    async def first_page() -> HTMLResponse:
        return HTMLResponse(page, headers={"Cache-Control": "no-cache"})

    server.add_api_route("/", first_page, response_model=None)
    server.router.routes.insert(0, server.router.routes.pop())  # first, because MLflow's own route matches every path
    return server
