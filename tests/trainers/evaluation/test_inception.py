"""Inception: values equal those of torch-fidelity's own command line, and errors about missing weights are clear."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from http_files import Files, http_files
from PIL import Image
from random_inception import save_random_inception
from torch import Tensor, nn
from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3

from trainers.datasets import Data
from trainers.evaluation import InceptionEvaluation
from trainers.evaluation.fidelity import FeatureEvaluator
from trainers.evaluation.inception import CPU_BATCH_SIZE, PUBLISHED_HASH, inception_extractor, load_inception
from trainers.metrics import names_of
from trainers.parts import ConfigError

COUNT = 12
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_random_inception(tmp_path_factory.mktemp("weights") / "weights.pth")


def blurred_noise(seed: int, contrast: float) -> Tensor:
    """Colour images (COUNT, 3, 20, 24) that differ from one another in more than their last bits."""
    source = torch.Generator().manual_seed(seed)
    coarse = torch.randn(COUNT, 3, 4, 4, generator=source)
    smooth = nn.functional.interpolate(coarse, (20, 24), mode="bilinear")
    return (128 + contrast * smooth).clamp(0, 255).to(torch.uint8)


def write_folder(folder: Path, images: Tensor) -> Path:
    folder.mkdir()
    for index, image in enumerate(images):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(folder / f"{index:03d}.png")
    return folder


def command_line(one: Path, other: Path, weights: Path) -> dict[str, float]:
    """torch-fidelity's command ``fidelity`` on two folders, in a process of its own."""
    asked = ["--isc", "--fid", "--kid", "--prc", "--kid-subset-size", str(COUNT // 4)]
    extractor = ["--feature-extractor", "inception-v3-compat", "--feature-extractor-weights-path", str(weights)]
    how = ["--cpu", "--json", "--silent", "--no-cache", "--save-cpu-ram", "--batch-size", str(CPU_BATCH_SIZE)]
    ran = subprocess.run(
        [sys.executable, "-m", "torch_fidelity.fidelity", "--input1", one, "--input2", other, *asked, *extractor, *how],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=250,
        check=True,
    )
    return json.loads(ran.stdout[ran.stdout.index("{") :])


@pytest.mark.long
@pytest.mark.filterwarnings("ignore:.*singular")
def test_metrics_are_those_of_torch_fidelitys_command_line(weights: Path, tmp_path: Path) -> None:
    generated, held_out = blurred_noise(0, contrast=60), blurred_noise(1, contrast=30)
    evaluator = FeatureEvaluator(inception_extractor(str(weights), CPU), Data(held_out, held_out), COUNT, tmp_path)
    ours = evaluator.measure(generated)
    theirs = command_line(
        write_folder(tmp_path / "generated", generated), write_folder(tmp_path / "held_out", held_out), weights
    )
    assert ours == pytest.approx(
        {
            "fid": theirs["frechet_inception_distance"],
            "inception_score": theirs["inception_score_mean"],
            "inception_score_std": theirs["inception_score_std"],
            "kid": theirs["kernel_inception_distance_mean"],
            "precision": theirs["precision"],
            "recall": theirs["recall"],
        },
        rel=1e-6,
    )
    assert set(ours) == {*names_of(InceptionEvaluation.metrics), *names_of(InceptionEvaluation.also_logged)}
    assert ours["fid"] > 1e-3


def test_the_weights_are_told_by_the_hash_of_their_file(weights: Path, tmp_path: Path) -> None:
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    assert inception_extractor(str(weights), CPU).info == {"extractor": f"inception-v3-compat-{digest[:12]}"}
    moved = shutil.copy(weights, tmp_path / "moved.pth")
    assert inception_extractor(str(moved), CPU).info["extractor"].endswith(digest[:12])  # type: ignore[union-attr]


def test_loading_touches_no_random_state_and_needs_no_gradient(weights: Path) -> None:
    before = torch.get_rng_state()
    network, _ = load_inception(str(weights))
    assert torch.equal(torch.get_rng_state(), before)
    assert not network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())


class Malice:
    """A pickle that runs code when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.path,)


def test_weights_that_are_none(tmp_path: Path) -> None:
    file = tmp_path / "weights.pth"

    def told() -> str:
        with pytest.raises(ConfigError) as raised:
            InceptionEvaluation(feature_weights=str(file)).prepare()
        assert raised.value.path == "evaluation.feature_weights"
        assert URL_INCEPTION_V3 in str(raised.value)
        assert "--feature-weights FILE" in str(raised.value)
        assert "\n" not in str(raised.value)
        return str(raised.value)

    assert f"there is no file '{file}'" in told()
    file.write_text("an error page")
    assert "is not a file of weights" in told()
    torch.save(nn.Linear(2, 2).state_dict(), file)
    assert "does not hold the weights of torch-fidelity's Inception" in told()
    torch.save([1, 2], file)
    assert "does not hold the weights" in told()
    torch.save(Malice(tmp_path / "run"), file)
    assert "is not a file of weights" in told()
    file.write_bytes(pickle.dumps(Malice(tmp_path / "run"), protocol=2))
    assert "is not a file of weights" in told()
    assert not (tmp_path / "run").exists()


FILE = URL_INCEPTION_V3.rpartition("/")[2]


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Files]:
    """The server from which weights are downloaded into the cache ``tmp_path``."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with http_files() as files:
        monkeypatch.setattr("trainers.evaluation.inception.URL_INCEPTION_V3", files.address + FILE)
        yield files


def test_the_published_weights_are_downloaded_once(
    weights: Path, server: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.contents[FILE] = weights.read_bytes()
    digest = hashlib.sha256(server.contents[FILE]).hexdigest()
    monkeypatch.setattr("trainers.evaluation.inception.PUBLISHED_HASH", digest[: len(PUBLISHED_HASH)])
    for _ in range(2):
        _, path = load_inception(None)
    assert path == tmp_path / "hub" / "checkpoints" / "weights-inception-2015-12-05-6726825d.pth"
    assert path.read_bytes() == server.contents[FILE]
    assert server.asked == [FILE]


@pytest.mark.parametrize("fault", ["not there", "other weights", "breaks off"])
def test_a_download_that_fails_says_what_to_bring(fault: str, weights: Path, server: Files, tmp_path: Path) -> None:
    reason = {"not there": "404", "other weights": 'invalid hash value \\(expected "6726825d"', "breaks off": "hash"}
    if fault != "not there":
        server.contents[FILE] = weights.read_bytes()
    server.sent_at_most = 1000 if fault == "breaks off" else None
    with pytest.raises(ConfigError, match=f"the download into .* failed .*{reason[fault]}") as raised:
        InceptionEvaluation().prepare()
    assert server.address + FILE in str(raised.value)
    assert "--feature-weights FILE" in str(raised.value)
    assert not list((tmp_path / "hub" / "checkpoints").glob("*.pth"))


def test_where_there_is_no_room_the_published_address_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "hub").write_text("no folder")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(ConfigError, match="the download into .* failed") as raised:
        InceptionEvaluation().prepare()
    assert URL_INCEPTION_V3 in str(raised.value)
