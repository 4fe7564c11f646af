"""MLflow's pages on this machine."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from orchestrator.errors import UserError
from orchestrator.tracking import default_uri


def serve(runs_dir: Path, tracking_uri: str | None, port: int) -> int:
    """Runs MLflow's server on the loopback interface until it is interrupted. Returns its exit code."""
    if tracking_uri is None and not (runs_dir / "mlflow.db").exists():
        raise UserError(f"there is no MLflow database in '{runs_dir}' yet: a sweep makes it")
    uri = tracking_uri or default_uri(runs_dir)
    if uri.startswith("http"):
        print(f"{uri} is a running MLflow server: open it in a browser.")
        return 0
    # The plain address opens an experiment on the view for traces.
    print(f"http://127.0.0.1:{port}/#/experiments?workflowType=machine_learning  (Ctrl-C ends it)", flush=True)
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", uri, "--host", "127.0.0.1"]
    environment = os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true"}
    try:
        return subprocess.run(
            [*command, "--port", str(port), "--workers", "1"], env=environment, check=False
        ).returncode
    except KeyboardInterrupt:
        return 0
