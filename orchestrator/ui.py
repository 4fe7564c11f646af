"""MLflow's pages on this machine."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from orchestrator.errors import UserError
from orchestrator.tracking import default_uri


def serve(runs_dir: Path, tracking_uri: str | None, port: int) -> None:
    """Becomes MLflow's server on the loopback interface, until it is interrupted."""
    if tracking_uri is None and not (runs_dir / "mlflow.db").exists():
        raise UserError(f"there is no MLflow database in '{runs_dir}' yet: a sweep makes it")
    uri = tracking_uri or default_uri(runs_dir)
    if uri.startswith("http"):
        print(f"{uri} is a running MLflow server: open it in a browser.")
        return
    # Without the last part MLflow opens an experiment on its view for traces.
    print(f"http://127.0.0.1:{port}/#/experiments?workflowType=machine_learning  (Ctrl-C ends it)", flush=True)
    os.environ |= {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # eight more processes that nobody here needs
        "PYTHONWARNINGS": "ignore",
    }
    artifacts = (runs_dir / "mlflow-artifacts").resolve().as_uri()
    server = ["-m", "mlflow", "server", "--backend-store-uri", uri, "--default-artifact-root", artifacts]
    options = ["--host", "127.0.0.1", "--port", str(port), "--workers", "1", "--uvicorn-opts", "--log-level warning"]
    os.execv(sys.executable, [sys.executable, *server, *options])  # signals reach the server itself
