"""MLflow's server as it is, but for what a browser begins with that has not been there before.

MLflow 3 opens an experiment on its view for traces of language models unless the browser remembers another choice, and
an assistant's panel over a quarter of the page. Whatever somebody has chosen there stays.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastapi import FastAPI
    from fastapi.responses import HTMLResponse

REMEMBERED = {"mlflow.workflowType_v1": '"machine_learning"', "mlflow.assistant.fab.autoOpenedOnFirstLoad_v1": "true"}
"""What MLflow's pages keep in the browser: "model training" at the top left, and that the assistant has been shown."""
SCRIPT = f"""<script>
for (const [key, value] of Object.entries({json.dumps(REMEMBERED)}))
  if (localStorage.getItem(key) === null) localStorage.setItem(key, value);
</script>"""


def make_app() -> FastAPI:
    """What ``mlflow server --app-name orchestrator`` serves (an entry point of the group ``mlflow.app``)."""
    from fastapi.responses import HTMLResponse
    from mlflow.server import REL_STATIC_DIR, app
    from mlflow.server.fastapi_app import app as server

    page = (Path(app.root_path) / REL_STATIC_DIR / "index.html").read_text().replace("<head>", f"<head>{SCRIPT}", 1)

    async def first_page() -> HTMLResponse:
        return HTMLResponse(page, headers={"Cache-Control": "no-cache"})

    server.add_api_route("/", first_page, response_model=None)
    server.router.routes.insert(0, server.router.routes.pop())  # the last one is MLflow's own, for every path
    return server
