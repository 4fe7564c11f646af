"""Evaluating a checkpoint, a sweep or a folder of images again, and what is refused."""

from __future__ import annotations

import io
import json
import shutil
import unicodedata
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import CommandLine
from hand_made import POINTS, make_sweep, write_file
from PIL import Image
from rich.console import Console
from small_trials import contents, create
from torch import Tensor

from orchestrator.errors import UserError
from orchestrator.results.best import best_again
from orchestrator.results.evaluate import Request, evaluate
from orchestrator.results.scores import Score, Scores, show_scores
from orchestrator.store import weights
from orchestrator.store.states import State
from orchestrator.store.sweep import SweepStore
from orchestrator.store.trial import TrialStore
from orchestrator.trial.run import run_trial
from trainers.config import TrialConfig, identity_of
from trainers.datasets import Digits
from trainers.devices import arithmetic
from trainers.evaluation.classifier import RECIPE
from trainers.evaluation.fidelity import Extractor, FeatureEvaluator
from trainers.evaluation.pictures import load_images
from trainers.training import FRESH_SEED, Training

MEASURED = {"evaluation": {"name": "classifier", "samples": 100, "times": 2}}


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A runs directory with a classifier in its cache."""
    return tmp_path_factory.mktemp("cached")


@pytest.fixture(scope="module")
def trained(cache: Path) -> TrialStore:
    """A small trial with a moving average, dropout and an evaluation in the middle, done."""
    network, generator = {"dropout": 0.3}, {"ema": 0.9}
    trial = create(cache / "trial", **MEASURED, network=network, generator=generator)
    assert run_trial(trial, cache / "cache") is State.DONE
    return trial


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> SweepStore:
    """Two cells and two seeds of which one has not run."""
    store = make_sweep(
        tmp_path_factory.mktemp("sweep"), f"name: hand\nbase: {POINTS}\ngrid: {{penalty.weight: [1, 2]}}\nseeds: 2\n"
    )
    for entry in store.entries()[:3]:
        assert run_trial(store.trial(entry.trial_id), store.cache_dir) is State.DONE
    return store


def stored(trial: TrialStore, metrics: dict[str, float]) -> list[dict[str, float]]:
    """The values of these metrics in the evaluated epochs of a trial."""
    return [{name: record[name] for name in metrics} for record in trial.epochs() if "evaluation_seconds" in record]


def test_the_last_checkpoint_measures_what_the_last_epoch_has_to_the_bit(trained: TrialStore, cache: Path) -> None:
    before = contents(trained.path)
    (score,) = evaluate(Request(str(trained.checkpoint_file), runs=cache)).scores
    assert {"classifier_fid", "classifier_is", "classifier_kid", "classifier_recall"} < score.metrics.keys()
    assert score.metrics == stored(trained, dict(score.metrics))[-1]
    assert (score.epoch, score.iteration, score.checkpoint) == (3, 50, "checkpoint.pt")
    assert evaluate(Request(str(trained.path), runs=cache)).scores == [score]
    assert contents(trained.path) == before


def test_the_best_checkpoints_are_measured_again_on_noise_that_did_not_choose_them(
    sweep: SweepStore, tmp_path: Path, command_line: CommandLine
) -> None:
    copy = SweepStore(tmp_path / "runs", sweep.name)
    shutil.copytree(sweep.path, copy.path)
    told = list[str]()
    again = best_again([copy], tell=told.append)
    done = [entry for entry in copy.entries() if copy.trial(entry.trial_id).best_file.exists()]
    assert [len(told), set(again)] == [3, {entry.trial_id for entry in done}]
    for entry in done:
        trial = copy.trial(entry.trial_id)
        chosen = min(metrics["exact_w1"] for metrics in stored(trial, {"exact_w1": 0})[1:])
        assert again[entry.trial_id]["exact_w1"] != chosen
        assert again[entry.trial_id]["exact_w1"] == pytest.approx(chosen, rel=0.5)
        training = Training(TrialConfig.from_dict(trial.config()), cache_dir=copy.cache_dir)
        training.load_state_dict(torch.load(trial.best_file, weights_only=True)["training"])
        assert training.evaluator is not None
        fresh = training.sample(training.evaluator.count, FRESH_SEED)
        assert again[entry.trial_id]["exact_w1"] == training.evaluator.measure(fresh)["exact_w1"]

    told.clear()
    assert best_again([copy], tell=told.append) == again  # from the cache
    assert told == []
    damaged = copy.trial(done[0].trial_id).best_file
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"!")
    code, out, errors = command_line("export", "hand", "--at", "best", "--format", "csv", "--runs-dir", copy.runs_dir)
    assert code == 0
    assert "best.pt cannot be used" in errors
    assert "1 of 2 without exact_w1" in out
    assert repr(again[done[2].trial_id]["exact_w1"]) in out
    first = copy.trial(done[0].trial_id)
    first.best_file.write_bytes(b"short")
    assert done[0].trial_id not in best_again([copy])
    shutil.copyfile(sweep.trial(first.trial_id).best_file, first.best_file)
    first.write_references({**first.references(), "info": {"exact_transport": "another solver"}})
    assert done[0].trial_id not in best_again([copy], tell=told.append)
    assert "another feature extractor" in told[-1]
    for entry in done:
        copy.trial(entry.trial_id).best_file.unlink()
    with pytest.raises(UserError, match="--at best: no trial has a best checkpoint"):
        best_again([copy])


def test_the_best_checkpoint_measures_what_its_epoch_has(trained: TrialStore, cache: Path) -> None:
    (score,) = evaluate(Request(str(trained.path), checkpoint="best", runs=cache)).scores
    best = min(stored(trained, dict(score.metrics))[1:], key=lambda metrics: metrics["classifier_fid"])
    assert score.metrics == best
    assert (trained.path / "best.pt").samefile(trained.path / str(score.checkpoint))


def test_a_probe_can_be_switched_on_afterwards(trained: TrialStore, cache: Path) -> None:
    usual = evaluate(Request(str(trained.path), runs=cache)).scores[0].metrics
    (score,) = evaluate(Request(str(trained.path), ("probes=[vertical_shift]",), runs=cache)).scores
    assert set(score.metrics) - set(usual) == {"shift_total_variation", "shift_zero_crossings"}
    assert {name: score.metrics[name] for name in usual} == usual


def test_another_evaluation_measures_otherwise(trained: TrialStore, cache: Path) -> None:
    usual = evaluate(Request(str(trained.path), runs=cache))
    more = evaluate(Request(str(trained.path), ("evaluation.samples=200", "device=cpu"), runs=cache))
    assert (usual.info["evaluation_samples"], more.info["evaluation_samples"]) == (100, 200)
    assert more.floor["classifier_fid"] < usual.floor["classifier_fid"]
    assert more.scores[0].metrics != usual.scores[0].metrics
    preset = evaluate(Request(str(trained.path), ("evaluation.samples=150", "evaluation=classifier"), runs=cache))
    assert preset.info["evaluation_samples"] == 150


def test_a_sweep_for_people_and_programs(sweep: SweepStore, command_line: CommandLine) -> None:
    before = contents(sweep.path)
    entries = sweep.entries()
    code, out, errors = command_line("evaluate", "hand", "--json", "--runs-dir", sweep.runs_dir)
    assert (code, errors) == (1, "")  # one of them is missing
    told = json.loads(out)
    assert [score["trial_id"] for score in told["scores"]] == [entry.trial_id for entry in entries[:3]]
    for score in told["scores"]:
        assert score["metrics"] == stored(sweep.trial(score["trial_id"]), score["metrics"])[-1]
    assert told["floor"] == sweep.trial(entries[0].trial_id).references()["floor"]
    assert told["missing"] == [f"trial {entries[3].trial_id} (hand weight=2 seed=1) has no last checkpoint"]

    code, out, _ = command_line("evaluate", "hand", "--runs-dir", sweep.runs_dir)
    assert code == 1
    lines = out.splitlines()
    assert lines[0].split() == ["epoch", "exact_w1", "↓", "exact_wqp", "↓"]
    assert [line.partition("  ")[0] for line in lines[1:5]] == [
        "hand weight=1 seed=0",
        "hand weight=2 seed=0",
        "hand weight=1 seed=1",
        "real training images",
    ]
    assert lines[5].startswith("transport on mixture; exact_transport: POT")
    assert lines[6] == told["missing"][0]
    assert contents(sweep.path) == before


def test_one_trial_of_a_sweep(sweep: SweepStore, command_line: CommandLine) -> None:
    entry = sweep.entries()[1]
    arguments = ["evaluate", "hand", "--trial", entry.trial_id[:6], "--json", "--runs-dir", sweep.runs_dir]
    code, out, _ = command_line(*arguments)
    assert code == 0
    assert [score["trial_id"] for score in json.loads(out)["scores"]] == [entry.trial_id]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A hundred real held-out digits."""
    folder = tmp_path / "images"
    folder.mkdir()
    for index, image in enumerate(Digits().load(tmp_path).held_out[:100]):
        Image.fromarray(image[0].numpy()).save(folder / f"{index:03d}.png")
    return folder


AGAINST = ("dataset=digits", "evaluation.samples=100")


def test_a_folder_of_images_against_a_dataset(folder: Path, cache: Path) -> None:
    scores = evaluate(Request(str(folder), AGAINST, runs=cache))
    assert abs(scores.scores[0].metrics["classifier_fid"]) < 1e-6 < scores.floor["classifier_fid"]
    assert scores.scores[0].metrics["classifier_recall"] == 1
    Image.open(folder / "000.png").convert("RGB").save(folder / "000.png")  # grey all the same
    (folder / "notes.txt").write_text("no image")
    assert evaluate(Request(str(folder), AGAINST, runs=cache)).scores == scores.scores


def test_a_folder_is_measured_in_full_float32(folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As trials are: both read the same cached features of real images."""
    seen = set()
    features = Extractor.features

    def noted(extractor: Extractor, images: Tensor) -> dict[str, Tensor]:
        seen.add(arithmetic(torch.device("cuda")))
        return features(extractor, images)

    monkeypatch.setattr(Extractor, "features", noted)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    evaluate(Request(str(folder), AGAINST, runs=cache))
    assert seen == {"cuda ieee"}


def test_images_are_read_in_the_order_of_their_names_as_they_are(folder: Path, tmp_path: Path) -> None:
    assert torch.equal(load_images(folder, 100, (1, 8, 8)), Digits().load(tmp_path).held_out[:100])
    colour = load_images(folder, 100, (3, 8, 8))
    assert torch.equal(colour, Digits().load(tmp_path).held_out[:100].expand(-1, 3, -1, -1))


def test_of_more_images_a_fixed_mixture_is_measured_and_said(
    tmp_path: Path, cache: Path, command_line: CommandLine
) -> None:
    data = Digits().load(tmp_path)
    assert data.held_out_labels is not None
    for form in ("NFC", "NFD"):
        for index, (image, label) in enumerate(zip(data.held_out, data.held_out_labels.tolist(), strict=True)):
            path = tmp_path / form / f"{unicodedata.normalize(form, 'zähl')}{label}-{index:03}.png"
            path.parent.mkdir(exist_ok=True)
            Image.fromarray(image[0].numpy()).save(path)
        (tmp_path / form / f"._zahl0-{index}.png").write_bytes(b"\0\5\x16\7")
    heard: list[str] = []
    scores = evaluate(Request(str(tmp_path / "NFC"), AGAINST, runs=cache), heard.append)
    told = "100 of 500 images are measured, always the same by a hash of their names; evaluation.samples sets how many"
    assert heard == [f"note: '{tmp_path / 'NFC'}': {told}"]
    assert scores.scores[0].metrics["classifier_is"] > 0.8 * scores.floor["classifier_is"]  # not four classes of ten
    again = evaluate(Request(str(tmp_path / "NFD"), AGAINST, runs=cache))
    assert again.scores[0].metrics == scores.scores[0].metrics
    code, _, errors = command_line("evaluate", tmp_path / "NFC", *AGAINST, "--runs-dir", cache)
    assert (code, errors.count("\n")) == (0, 1)
    assert "100 of 500 images are measured" in errors


def test_a_folder_scores_the_same_however_its_files_are_written(folder: Path, cache: Path, tmp_path: Path) -> None:
    expected = evaluate(Request(str(folder), AGAINST, runs=cache)).scores[0].metrics
    turned = Image.Exif()
    turned[0x0112] = 6
    for index, path in enumerate(sorted(folder.iterdir())):
        with Image.open(path) as image:
            pixels = np.asarray(image)
        written: dict[str, tuple[Image.Image, dict[str, Any]]] = {
            "16-bit.png": (Image.fromarray(pixels.astype(np.uint16) * 257), {}),
            "12-bit.tif": (Image.fromarray(pixels.astype(np.uint16) << 4), {}),
            "turned.png": (Image.fromarray(pixels).transpose(Image.Transpose.ROTATE_90), {"exif": turned}),
            "alpha.png": (_on_nothing(pixels), {}),
            "bitmap.bmp": (Image.fromarray(pixels), {}),
            "palette.gif": (Image.fromarray(pixels).convert("P"), {}),
            "sub/web.webp": (Image.fromarray(pixels).convert("RGB"), {"lossless": True}),
        }
        for name, (picture, options) in written.items():
            file = tmp_path / Path(name).stem / Path(name).parent / f"{index:03}{Path(name).suffix}"
            file.parent.mkdir(parents=True, exist_ok=True)
            picture.save(file, **options)
    for name in written:
        assert evaluate(Request(str(tmp_path / Path(name).stem), AGAINST, runs=cache)).scores[0].metrics == expected


def test_held_out_photographs_are_measured_as_they_were_cropped_for_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(RECIPE, "steps", 2)
    data = Digits().load(tmp_path)
    for part, images in (("train", data.train[:200]), ("val", data.held_out[:100])):
        for index, image in enumerate(images):
            path = tmp_path / "photographs" / part / f"{index % 2}" / f"{index}.tif"
            path.parent.mkdir(parents=True, exist_ok=True)
            deep = image[0].numpy().astype(np.uint16) << 4
            Image.fromarray(deep).resize((20, 16), Image.Resampling.NEAREST).save(path)
    options = ("dataset=image_folder", f"dataset.root={tmp_path / 'photographs'}", "dataset.size=8")
    options = (*options, "dataset.channels=1", "evaluation=classifier", "evaluation.samples=100", "device=cpu")
    scores = evaluate(Request(str(tmp_path / "photographs" / "val"), options, runs=tmp_path / "runs"))
    assert abs(scores.scores[0].metrics["classifier_fid"]) < 1e-6
    assert scores.scores[0].metrics["classifier_recall"] == 1


def _on_nothing(pixels: np.ndarray) -> Image.Image:
    """Pixels of which white ones are transparent black."""
    alpha = np.where(pixels == 255, 0, 255).astype(np.uint8)
    return Image.fromarray(np.stack([np.where(alpha, pixels, 0).astype(np.uint8)] * 3 + [alpha], axis=2))


def test_a_folder_with_a_split_is_not_measured(folder: Path, cache: Path, command_line: CommandLine) -> None:
    for name in ("Train", "Val"):
        shutil.copytree(folder, folder.parent / "both" / name)
    told = refused(command_line, cache, folder.parent / "both", *AGAINST)
    assert "the folders 'Train' and 'Val' are a split; give the folder of the images to measure" in told


def test_damaged_and_foreign_images_are_named(folder: Path, cache: Path, command_line: CommandLine) -> None:
    Image.new("L", (20_000, 20_000)).save(folder / "000.png")
    for index in range(1, 4):
        content = bytearray((folder / f"{index:03}.png").read_bytes())
        content[12 + index] ^= 0xFF
        (folder / f"{index:03}.png").write_bytes(content)
    (folder / "004.png").rename(folder / "004.heic")
    (folder / "004.heic").write_bytes(b"\0\0\0\x18ftypheic")
    told = refused(command_line, cache, folder, *AGAINST)
    assert "000.png (unreadable: Image size (400000000 pixels) exceeds limit" in told
    assert "004.heic (unreadable: not an image)" in told


def test_images_that_do_not_fit_are_named(folder: Path, cache: Path, command_line: CommandLine) -> None:
    for index in range(7):
        Image.new("L", (9, 7 + index)).save(folder / f"{index:03d}.png")
    (folder / "001.png").write_text("no image")
    code, out, errors = command_line("evaluate", folder, *AGAINST, "--runs-dir", cache)
    assert (code, out) == (2, "")
    assert "not every image is 8×8" in errors
    assert "000.png (9×7), 001.png (unreadable" in errors
    assert "and 2 more" in errors


def refused(command_line: CommandLine, runs_dir: Path, *arguments: object) -> str:
    code, out, errors = command_line("evaluate", *arguments, "--runs-dir", runs_dir)
    assert (code, out) == (2, "")
    assert errors.startswith("orchestrator: ")
    assert errors.count("\n") == 1
    return errors


def test_what_a_folder_cannot_be_measured_against(folder: Path, cache: Path, command_line: CommandLine) -> None:
    assert "name the dataset to compare with" in refused(command_line, cache, folder)
    assert "has 100 images" in refused(command_line, cache, folder, "dataset=digits")
    assert "dataset=mixture has points" in refused(command_line, cache, folder, "dataset=mixture")
    assert "at most 500" in refused(command_line, cache, folder, "dataset=digits", "evaluation.samples=501")
    assert "measures nothing" in refused(command_line, cache, folder, "dataset=digits", "evaluation=none")
    assert "--trial needs a sweep" in refused(command_line, cache, folder, *AGAINST, "--trial", "ab")
    for text in ("budget=3", "trainer=wwgan", "probes=[lipschitz]"):
        told = refused(command_line, cache, folder, *AGAINST, "device=cpu", text)
        assert f"'{text}': a folder of images takes only these overrides" in told
    assert "has no checkpoints" in refused(command_line, cache, folder, *AGAINST, "--checkpoint", "best")


@pytest.mark.parametrize("width", [160, 120, 80, 40])
def test_every_name_and_digit_is_there_however_narrow_the_terminal(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["classifier_fid", "classifier_is", "classifier_is_std", "classifier_kid", "classifier_precision", "recall"]
    metrics = {name: 0.01234 + index for index, name in enumerate(names)}
    labels = ["wwgan neighbourhood=diamond weight=1 seed=0", "wgan seed=1"]
    found = [Score(label, metrics, epoch=120) for label in labels]
    scores = Scores("digits", "classifier", frozenset({"classifier_is"}), found, dict.fromkeys(names[:-1], 0.5))
    console = Console(width=width, file=io.StringIO())
    monkeypatch.setattr("orchestrator.results.scores.wide_console", lambda: console)
    show_scores(scores)
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    assert "…" not in text
    assert all(len(line.rstrip()) <= width for line in text.splitlines())
    for value in metrics.values():
        assert text.split().count(f"{value:.4g}") == len(labels)
    for name in names:
        assert all(part in text.split() for part in (name.split("_") if width == 120 else [name]))
    assert text.split().count("0.5") == len(names) - 1


def test_bad_requests_are_errors(
    sweep: SweepStore, trained: TrialStore, tmp_path: Path, cache: Path, command_line: CommandLine
) -> None:
    def told(*arguments: object, runs_dir: Path = cache) -> str:
        return refused(command_line, runs_dir, *arguments)

    assert "did you mean 'hand'" in told("hnad", runs_dir=sweep.runs_dir)
    assert "no such trial" in told("hand", "--trial", "xyz", runs_dir=sweep.runs_dir)
    waiting = sweep.entries()[3].trial_id
    assert "has no best checkpoint" in told("hand", "--trial", waiting, "--checkpoint", "best", runs_dir=sweep.runs_dir)
    assert "last or best" in told(trained.path, "--checkpoint", "first")
    assert "only the measuring of a trained trial can be changed" in told(trained.path, "network=toy")
    assert "did you mean 'evaluation.samples'" in told(trained.path, "evaluation.sampels=3")
    assert "did you mean 'classifier'" in told(trained.path, "evaluation=clasifier")
    assert "measures nothing" in told(trained.path, "evaluation=none")
    assert "has images" in told(trained.path, "evaluation=transport")
    assert "uses no feature weights; 'inception' does" in told(trained.path, "--feature-weights", "weights.pth")
    assert "there is no file" in told(
        trained.path, "evaluation=inception", "evaluation.samples=100", "--feature-weights", tmp_path / "weights.pth"
    )
    lonely = tmp_path / "checkpoint.pt"
    lonely.write_bytes(trained.checkpoint_file.read_bytes())
    assert "expected config.yaml" in told(lonely)
    (tmp_path / "config.yaml").write_text((trained.path / "config.yaml").read_text().replace("seed: 0", "seed: 1"))
    assert f"belongs to trial {identity_of(trained.config())}" in told(lonely)
    lonely.write_bytes(trained.checkpoint_file.read_bytes()[:-1])
    assert "checkpoint.pt cannot be used: it " in told(lonely)


def test_warnings_are_notes(trained: TrialStore, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[str] = []
    monkeypatch.setattr(FeatureEvaluator, "floor", lambda _: warnings.warn("prefer KID", stacklevel=1) or {"fid": 0.0})
    evaluate(Request(str(trained.path), runs=cache), heard.append)
    assert heard == ["note: prefer KID"]


def test_a_trial_is_never_measured_by_two_extractors(tmp_path: Path, cache: Path) -> None:
    trial = create(tmp_path / "trial", **MEASURED)
    run_trial(trial, cache / "cache", should_stop=iter([False] * 25 + [True] * 100).__next__)
    references = trial.references()
    trial.write_references({**references, "info": {**references["info"], "extractor": "inception-v3-compat-0123"}})
    assert run_trial(trial, cache / "cache") is State.FAILED
    error = trial.status().error or ""
    assert "measured with inception-v3-compat-0123 and this attempt has trainers-classifier" in error
    assert "--restart" in error
    trial.restart()
    assert run_trial(trial, cache / "cache") is State.DONE


INCEPTION = """\
name: photographs
base: [dataset=digits, evaluation=inception, evaluation.samples=100, budget=40, device=cpu]
grid: {penalty.weight: [1, 2]}
"""


def test_weights_are_given_to_plans_and_stored_trials_and_change_no_trial(tmp_path: Path) -> None:
    store = make_sweep(tmp_path, INCEPTION)
    ids = [entry.trial_id for entry in store.entries()]
    file = tmp_path / "it's here.pth"
    weights.give_weights(store, ids, file)
    configs = [store.trial(trial_id).config() for trial_id in ids]
    assert [config["evaluation"]["feature_weights"] for config in configs] == [str(file)] * 2
    again = make_sweep(tmp_path, INCEPTION, "evaluation.feature_weights=/elsewhere.pth")  # needs no other name
    assert [entry.trial_id for entry in again.entries()] == ids


@pytest.mark.parametrize("command", ["sweep", "resume", "train"])
def test_missing_weights_are_told_before_anything_starts(
    command: str, tmp_path: Path, command_line: CommandLine
) -> None:
    runs, missing = tmp_path / "runs", tmp_path / "it's gone.pth"
    common = ["--runs-dir", runs, "--feature-weights", missing]
    if command == "train":
        arguments: list[Any] = ["evaluation=inception", "evaluation.samples=100"]
    elif command == "sweep":
        arguments = [write_file(tmp_path, INCEPTION), "--offline"]
    else:
        make_sweep(tmp_path, INCEPTION)
        arguments = ["photographs", "--offline"]
    code, out, errors = command_line(command, *arguments, *common)
    assert (code, out) == (2, "")
    assert errors.startswith(f"orchestrator: evaluation.feature_weights: there is no file '{missing}'")
    states = [SweepStore(runs, "photographs").trial(path.name).status() for path in runs.glob("photographs/trials/*")]
    assert all(status.state is State.PENDING and not status.attempts for status in states)
    assert not (runs / "train").exists()


def test_weights_for_an_evaluation_without_any(tmp_path: Path, command_line: CommandLine) -> None:
    path = write_file(tmp_path, f"name: s\nbase: {POINTS}\n")
    arguments = ["--feature-weights", "weights.pth", "--runs-dir", tmp_path / "runs"]
    for command in (["sweep", path, "--offline"], ["train", "evaluation=classifier"]):
        code, _, errors = command_line(*command, *arguments)
        assert code == 2
        assert "uses no feature weights; 'inception' does" in errors
    assert not (tmp_path / "runs").exists()
