"""A trial's pictures in MLflow, named so that its charts can step through them."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.tracking.mlflow_private import THUMBNAIL, picture_names
from trainers.data.decoding import open_image

if TYPE_CHECKING:
    from mlflow import MlflowClient


def picture_name(picture: Path, trial_id: str) -> tuple[str, str, str]:
    """The folder of ``samples/epoch_000003.png`` in MLflow, its name there, and that of its small version.

    MLflow's own client puts random digits where we put the trial's id, so that a picture logged twice exists twice.
    """
    _, epoch, *probe = picture.stem.split("_", 2)
    return picture_names(probe[0] if probe else "samples", epoch, trial_id)


def log_picture(client: MlflowClient, run_id: str, trial_id: str, picture: Path) -> str | None:
    """Logs a picture, with a small version beside it. Returns why it cannot be read, and what helps; None if it can."""
    target, name, small = picture_name(picture, trial_id)
    with tempfile.TemporaryDirectory() as folder:
        try:
            with open_image(picture) as image:
                image.thumbnail((THUMBNAIL, THUMBNAIL))
        except Exception as error:  # Pillow's plugins raise any error on a broken file
            return f"{picture}: is left out, because it cannot be read ({error}); delete it"
        image.save(Path(folder) / small)  # a full disk is no fault of the picture
        shutil.copyfile(picture, Path(folder) / name)
        client.log_artifacts(run_id, folder, target)
    return None
