"""MLflow's server as it is, but for what a browser begins with that has not been there before.

MLflow 3 opens an experiment on its view for traces of language models unless the browser remembers another choice, and
an assistant's panel over a quarter of the page. Whatever somebody has chosen there stays.
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
    """What ``mlflow server --app-name orchestrator`` serves (an entry point of the group ``mlflow.app``)."""
    from fastapi.responses import HTMLResponse

    page = mlflow_private.first_page().replace("<head>", f"<head>{SCRIPT}", 1)

    async def first_page() -> HTMLResponse:
        return HTMLResponse(page, headers={"Cache-Control": "no-cache"})

    return mlflow_private.server_with(first_page)
