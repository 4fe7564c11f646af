"""MLflow's own server with better defaults for a browser that visits it for the first time.

Unless the browser remembers another choice, MLflow 3 opens an experiment in its view for traces of language models, and
covers a quarter of the page with an assistant's panel. Choices that a user has made are kept.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from orchestrator.tracking import mlflow_private

if TYPE_CHECKING:
    from fastapi import FastAPI
    from fastapi.responses import HTMLResponse

SCRIPT = f"""<script>
for (const [key, value] of Object.entries({json.dumps(mlflow_private.REMEMBERED)}))
  if (localStorage.getItem(key) === null) localStorage.setItem(key, value);
</script>"""


def make_app() -> FastAPI:
    """The app behind ``mlflow server --app-name orchestrator`` (an entry point of the group ``mlflow.app``)."""
    from fastapi.responses import HTMLResponse

    page = mlflow_private.first_page().replace("<head>", f"<head>{SCRIPT}", 1)

    async def first_page() -> HTMLResponse:
        return HTMLResponse(page, headers={"Cache-Control": "no-cache"})

    return mlflow_private.server_with(first_page)
