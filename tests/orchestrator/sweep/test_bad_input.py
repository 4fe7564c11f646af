"""Errors in a sweep are reported before anything starts.

The exit code is 2, the message is one short paragraph without a traceback, and nothing is made. For a file the message
has the line and what was expected.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from command_line import CommandLine
from hand_made import finish, write_file
from PIL import Image

from orchestrator.store.sweep import SweepStore

B = "base: [dataset=digits, evaluation=none, budget=40]\n"  # one line

# the file, the line that the message must name, words that it must contain
FILES = [
    pytest.param("name: s\ngird: {budget: [1]}\n", 2, ["gird", "did you mean 'grid'"], id="unknown key"),
    pytest.param(
        "variants:\n  a:\n    sed: 1\n",
        3,
        ["variants.a.sed", "base, exclude, grid, search, zip"],
        id="unknown key in a variant",
    ),
    pytest.param("a: [1\n", 2, ["not valid YAML"], id="not YAML"),
    pytest.param("[1, 2]\n", 1, ["expected a mapping"], id="a list for a file"),
    pytest.param("", 1, ["expected a mapping"], id="empty file"),
    pytest.param("paper: {rows: {}}\n", 1, ["expected source", "Table 1"], id="paper: no source"),
    pytest.param("paper:\n  source: T\n  row: {}\n", 3, ["did you mean 'rows'"], id="paper: misspelt key"),
    pytest.param(
        "paper:\n  source: T\n  rows:\n    s: {fid: low}\n", 4, ["expected a number", "'low'"], id="paper: no number"
    ),
    pytest.param(
        B + "name: s\ngrid: {penalty.weight: [1, 2]}\npaper:\n  source: T\n  rows:\n    s weight=3: {fid: 80.7}\n",
        7,
        ["no cell called 's weight=3'", "did you mean 's weight=1'"],
        id="paper: unknown cell",
    ),
    pytest.param("name: s\nseeds: 1\nname: t\n", 3, ["'name'", "twice", "line 1"], id="duplicate key"),
    pytest.param("name: a/b\n", 1, ["'a/b' is not a name"], id="name with a slash"),
    pytest.param("name: ..\n", 1, ["'..' is not a name"], id="name that leaves the folder"),
    pytest.param("name: a..b\n", 1, ["'a..b' is not a name"], id="name with two points"),
    pytest.param("name: !!python/object/apply:os.system [ls]\n", 1, ["python/object/apply:os.system"], id="object tag"),
    pytest.param("name: s\nvariants: {../x: {}}\n", 2, ["'../x' is not a name"], id="variant's name"),
    pytest.param("variants: {}\n", 1, ["at least one variant"], id="no variant"),
    pytest.param("base: dataset=digits\n", 1, ["list of overrides", "[trainer=wgan_gp]"], id="base that is no list"),
    pytest.param("base:\n  - dataset=digits\n  - mlp\n", 3, ["'mlp'", "override such as"], id="base: no override"),
    pytest.param("base:\n  - dataset=digits\n  - a=b=(\n", 3, ["a=b=("], id="base: bad syntax"),
    pytest.param("base: [dataset=digits,\n  trainer=wgan_pg]\n", 2, ["did you mean 'wgan_gp'"], id="misspelt trainer"),
    pytest.param("base: [dataset=digit]\n", 1, ["no dataset called 'digit'", "'digits'"], id="misspelt dataset"),
    pytest.param("base: [budgte=3]\n", 1, ["'budgte'", "did you mean 'budget'"], id="unknown option in base"),
    pytest.param("base: [penalty.wieght=3]\n", 1, ["penalty.weight"], id="unknown option of a part in base"),
    pytest.param("base: ['budget=1,2']\n", 1, ["several values", "grid"], id="several values in base"),
    pytest.param("base: [hydra.run.dir=/tmp]\n", 1, ["Hydra"], id="Hydra's own options"),
    pytest.param("base: [trainer=qp_wgan, objective.q=0.5]\n", 1, ["objective.q", "at least 1", "0.5"], id="q below 1"),
    pytest.param("base: [trainer=qp_wgan]\ngrid:\n  objective.p: [1,\n    0.5]\n", 4, ["at least 1"], id="p below 1"),
    pytest.param("grid:\n  penalty.weight: [1, -1]\n", 2, ["penalty.weight", "at least 0", "-1"], id="negative λ"),
    pytest.param(
        "base: [trainer=wwgan]\ngrid: {penalty.neighbourhood: [cross, sqare]}\n",
        2,
        ["'sqare'", "cross, square, diamond", "did you mean 'square'"],
        id="unknown neighbourhood",
    ),
    pytest.param(
        "base: [trainer=wwgan]\ngrid:\n  penalty.neighbourhood:\n    - [{offset: [0, 0]}]\n",
        4,
        ["offset", "[0, 0]"],
        id="an offset of zero",
    ),
    pytest.param(B + "grid: {budget: [1.5]}\n", 2, ["whole number", "1.5"], id="half an iteration"),
    pytest.param(B + "grid: {penalty: [gradent]}\n", 2, ["'gradent'", "did you mean 'gradient'"], id="unknown penalty"),
    pytest.param(
        B + "grid: {penalty.neighborhood: [cross]}\n",
        2,
        ["grid.penalty.neighborhood", "no configuration"],
        id="no axis",
    ),
    pytest.param(
        B + "variants:\n  a:\n  b:\ngrid: {critic.lrr: [1]}\n",
        5,
        ["no variant's configuration", "did you mean 'critic.lr'"],
        id="an axis that no variant has",
    ),
    pytest.param(
        B + "variants:\n  a: {grid: {penalty.bound: [1]}}\n", 3, ["variants.a.grid.penalty.bound"], id="a variant's own"
    ),
    pytest.param("name: s\ngrid: {}\n", 2, ["grid", "at least one axis"], id="empty grid"),
    pytest.param("name: s\ngrid:\nseeds: 1\n", 2, ["grid", "at least one axis"], id="nothing for a grid"),
    pytest.param("variants:\n  a: {grid: {}}\n", 2, ["variants.a.grid"], id="a variant's empty grid"),
    pytest.param("grid:\n  budget: []\n", 2, ["grid.budget", "at least one value"], id="empty axis"),
    pytest.param("grid: {budget: 3}\n", 1, ["expected a list", "choice(1, 10)"], id="one value that is no list"),
    pytest.param("grid: {budget: three}\n", 1, ["'three'", "choice(1, 10)"], id="a word that is no list"),
    pytest.param("grid: {budget: 'choice(1'}\n", 1, ["'choice(1'"], id="a broken Hydra sweep"),
    pytest.param(B + "grid: {penalty.weight: [1, 1.0]}\n", 2, ["duplicate cell"], id="duplicate cell: 1 and 1.0"),
    pytest.param(
        B + "variants:\n  a:\n  b:\n", 4, ["'b'", "'a'", "duplicate cell"], id="duplicate cell: two equal variants"
    ),
    pytest.param(
        B + "variants:\n  a: {grid: {penalty: [gradient, none]}}\n  b:\n",
        4,
        ["'b'", "'a penalty=gradient'"],
        id="duplicate cell: an axis value that is the default elsewhere",
    ),
    pytest.param("seeds: [1, 2, 1]\n", 1, ["seed 1 is given twice"], id="a seed twice"),
    pytest.param("seeds: 0\n", 1, ["1 or more", "0"], id="no seeds"),
    pytest.param("seeds: [0.5]\n", 1, ["seeds"], id="half a seed"),
    pytest.param(B + "grid: {seed: [1, 2]}\n", 2, ["seeds: 3"], id="seed as an axis"),
    pytest.param("batch_size: 1\nseeds: 010\n", 2, ["seeds", "'010'", "octal", "write 10"], id="octal seeds"),
    pytest.param(
        B + "grid:\n  batch_size: [64,\n    064]\n", 4, ["grid.batch_size", "'064'", "write 64"], id="an octal value"
    ),
    pytest.param("name: s\nseeds: 100000000\n", 2, ["seeds", "100,000,000 trials", "100,000"], id="many seeds"),
    pytest.param("seeds: range(1,100000000)\n", 1, ["seeds", "99,999,999 values"], id="a huge range of seeds"),
    pytest.param(
        B + "grid:\n  penalty.weight: range(0,1000)\n  critic.lr: range(1,1000)\n  budget: range(1,1000)\n",
        2,
        ["grid", "998,001,000 trials", "at most 100,000"],
        id="a huge product",
    ),
    pytest.param("name: s\nzip:\n  critic.lr: [1, 2]\n  generator.lr: [1]\n", 2, ["has 2", "has 1"], id="zip: unequal"),
    pytest.param(
        B + "zip: {critic.lr: [1], budget: [1]}\ngrid: {budget: [1]}\n", 2, ["zip.budget"], id="an axis in grid and zip"
    ),
    pytest.param(
        B + "zip: {critic.lr: [1], generatr.lr: [1]}\n", 2, ["did you mean 'generator.lr'"], id="half a zip applies"
    ),
    pytest.param(
        B + "grid: {budget: [1, 2]}\nexclude:\n  - {budget: 2}\n  - {budget: 3}\n",
        5,
        ["no cell"],
        id="exclude: no cell",
    ),
    pytest.param(
        B + "grid: {budget: [1, 2]}\nexclude: [{budgte: 2}]\n", 3, ["'budgte'", "'budget'"], id="exclude: no axis"
    ),
    pytest.param(B + "grid: {budget: [1]}\nexclude: [{budget: 1}]\n", 1, ["every cell"], id="exclude: everything"),
    pytest.param(B + "exclude: {budget: 1}\n", 2, ["list of mappings"], id="exclude: no list"),
    pytest.param("resources: {cpus: -1}\n", 1, ["resources.cpus", "above 0", "-1"], id="negative resources"),
    pytest.param("resources: {gpus: -0.5}\n", 1, ["resources.gpus", "-0.5"], id="negative GPUs"),
    pytest.param("resources: {cpus: 0}\n", 1, ["resources.cpus"], id="no CPU"),
    pytest.param("resources: {gpus: 1.5}\n", 1, ["resources.gpus", "1.5"], id="one GPU and a half"),
    pytest.param("resources: {gpus: .inf}\n", 1, ["resources.gpus", "inf"], id="endless GPUs"),
    pytest.param("resources: {cpus: .nan}\n", 1, ["resources.cpus", "nan"], id="resources that are no number"),
    pytest.param("resources: {custom: 1}\n", 1, ["resources.custom", "expected a mapping"], id="custom is no mapping"),
    pytest.param("resources: {custom: {big: 0}}\n", 1, ["resources.custom.big", "above 0"], id="none of a resource"),
    pytest.param("resources: {custom: {big: 1.5}}\n", 1, ["resources.custom.big", "1.5"], id="a unit and a half"),
    pytest.param("resources: {custom: {GPU: 1}}\n", 1, ["resources.gpus"], id="a GPU as custom resource"),
    pytest.param("resources: {gpu: 1}\n", 1, ["resources.gpu", "'gpus'"], id="unknown resource"),
    pytest.param("retries: -1\n", 1, ["retries", "at least 0", "-1"], id="negative retries"),
    pytest.param("compare: {mode: lowest}\n", 1, ["compare.mode", "min or max", "lowest"], id="unknown mode"),
    pytest.param("compare: {metric: exact_w2}\nbase: [dataset=mixture]\n", 1, ["'exact_w1'"], id="unknown metric"),
    pytest.param("compare: {mode: min}\n", 1, ["compare", "metric"], id="nothing to compare by"),
    pytest.param(
        B + "grid: {evaluation: [none, classifier]}\n", 2, ["evaluation", "one reference"], id="two evaluations"
    ),
    pytest.param(
        "variants:\n  a: {base: [dataset=digits]}\n  b: {base: [dataset=mixture]}\n", 1, ["dataset"], id="two datasets"
    ),
    pytest.param("base: [seed=3]\n", 1, ["seeds"], id="seed in base"),
    pytest.param("base: ['budget=${seed}']\n", 1, ["interpolations"], id="an interpolation"),
    pytest.param(B + "grid: {penalty.name: [gradient]}\n", 2, ["penalty.name"], id="a part's name as an axis"),
    pytest.param(
        B + "zip: {critic.lr: [1], generator.lr: [1]}\nvariants:\n  a: {grid: {critic.lr: [2]}}\n",
        4,
        ["'critic.lr'", "zip"],
        id="a variant's axis out of a zip",
    ),
    *(pytest.param(f"name: {name}\n", 1, [f"'{name}' is taken"], id=f"name: {name}") for name in ("cache", "train")),
    pytest.param(
        "early_stopping: {scheduler: ahsa, grace: 9}\n",
        1,
        ["early_stopping.scheduler", "'ahsa'", "did you mean 'asha'"],
        id="early stopping: unknown scheduler",
    ),
    pytest.param("early_stopping: {grace: 9}\n", 1, ["scheduler", "asha, median"], id="early stopping: no scheduler"),
    pytest.param(
        "early_stopping: {scheduler: [asha], grace: 9}\n", 1, ["scheduler", "asha"], id="early stopping: two schedulers"
    ),
    pytest.param("early_stopping: asha\n", 1, ["early_stopping", "mapping"], id="early stopping: only a word"),
    pytest.param(
        "early_stopping:\n  scheduler: median\n  grace: 9\n  reduction_factor: 2\n",
        4,
        ["early_stopping.reduction_factor", "unknown key", "minimum_trials"],
        id="early stopping: the other scheduler's option",
    ),
    pytest.param(
        "early_stopping:\n  scheduler: asha\n  graze: 9\n",
        3,
        ["early_stopping.graze", "did you mean 'grace'"],
        id="early stopping: unknown key",
    ),
    pytest.param(
        "name: s\nearly_stopping: {scheduler: asha}\n", 2, ["early_stopping", "grace"], id="early stopping: no grace"
    ),
    pytest.param(
        "early_stopping:\n  scheduler: asha\n  grace: 0\n", 3, ["at least 1", "0"], id="early stopping: a grace of 0"
    ),
    pytest.param(
        B + "early_stopping:\n  scheduler: asha\n  grace: 40\n",
        4,
        ["early_stopping.grace", "more than 40 critic iterations"],
        id="early stopping: a grace as long as the budget",
    ),
    pytest.param(
        "base: [dataset=mixture]\nearly_stopping: {scheduler: asha, grace: 9, metric: exact_w2}\n",
        2,
        ["early_stopping.metric", "'exact_w2'", "did you mean 'exact_w1'"],
        id="early stopping: unknown metric",
    ),
    pytest.param(
        "early_stopping: {scheduler: asha, grace: 9, metric: critic_loss, mode: lowest}\n",
        1,
        ["early_stopping.mode", "min or max", "lowest"],
        id="early stopping: unknown mode",
    ),
    pytest.param(
        "early_stopping:\n  scheduler: asha\n  grace: 9\n  mode: max\n",
        4,
        ["early_stopping.mode", "expected metric: NAME beside mode"],
        id="early stopping: a mode without a metric",
    ),
    *(
        pytest.param(
            f"early_stopping: {{scheduler: asha, grace: 9, reduction_factor: {factor}}}\n",
            1,
            ["early_stopping.reduction_factor", "above 1"],
            id=f"early stopping: a reduction factor of {factor}",
        )
        for factor in ("1", ".nan", "'4'")
    ),
    pytest.param("name: s\nmax_failures: 0\n", 2, ["max_failures", "at least 1", "0"], id="no failure at all"),
    pytest.param("max_failures:\n", 1, ["max_failures", "at least 1"], id="nothing for failures"),
    pytest.param("name: s\ncontinue_from: ../x\n", 2, ["continue_from", "'../x' is not a name"], id="continue_from"),
    pytest.param("scale: {small: budget=3}\n", 1, ["scale.small", "list"], id="a scale that is no list"),
    pytest.param("scale: {a/b: [budget=3]}\n", 1, ["'a/b' is not a name"], id="a scale's name"),
]


def refused(result: tuple[int, str, str]) -> str:
    """The message of a command that refused its input."""
    code, out, message = result
    assert code == 2, (code, out, message)
    assert out == ""
    assert message.endswith("\n")
    assert "\n" not in message[:-1]
    assert "Traceback" not in message
    return message


@pytest.mark.parametrize(("text", "line", "told"), FILES)
def test_a_bad_file(tmp_path: Path, command_line: CommandLine, text: str, line: int, told: list[str]) -> None:
    path = write_file(tmp_path, text, "s.yaml")
    message = refused(command_line("sweep", path, "--runs-dir", tmp_path / "runs"))
    assert f"{path}:{line}: " in message
    assert all(word in message for word in told), message
    assert not (tmp_path / "runs").exists()


GOOD = B + "grid: {penalty.weight: [1, 2]}\nscale: {small: [budget=20], bad: [budgte=3]}\n"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        pytest.param(["penalty.weight=3"], ["'penalty.weight=3' names an axis"], id="an override naming an axis"),
        pytest.param(["budgte=3", "--name", "t"], ["budgte=3", "did you mean 'budget'"], id="an unknown override"),
        pytest.param(["trainer=wgan_pg", "--name", "t"], ["'wgan_gp'"], id="a misspelt trainer"),
        pytest.param(["budget=-3", "--name", "t"], ["budget=-3", "at least 1"], id="a value outside its domain"),
        pytest.param(["budget", "--name", "t"], ["'budget'", "override such as"], id="no override at all"),
        pytest.param(["budget=1,2", "--name", "t"], ["several values", "grid"], id="several values"),
        pytest.param(["budget=30"], ["--name"], id="other trials under the same name"),
        pytest.param(["seeds=2"], ["--name"], id="other seeds under the same name"),
        pytest.param(["seeds=100000", "--name", "t"], ["200,000 trials", "at most 100,000"], id="too many trials"),
        pytest.param(["seeds=0", "--name", "t"], ["seeds", "1 or more"], id="no seeds"),
        pytest.param(["seeds=", "--name", "t"], ["seeds"], id="nothing for seeds"),
        pytest.param(["seeds=1", "seeds=2", "--name", "t"], ["seeds= is given twice"], id="seeds twice"),
        pytest.param(["continue_from=a", "continue_from=b"], ["continue_from= is given twice"], id="two ancestors"),
        pytest.param(["continue_from=../x"], ["continue_from", "'../x' is not a name"], id="an ancestor with a slash"),
        pytest.param(["--offline", "--tracking-uri", "x"], ["--offline", "--tracking-uri"], id="no MLflow, and where"),
        pytest.param(["--name", "../t"], ["--name", "'../t' is not a name"], id="a name with a slash"),
        pytest.param(["scale=smal"], ["no scale called 'smal'", "'small'"], id="an unknown scale"),
        pytest.param(["scale=bad"], ["budgte"], id="a scale with an unknown option"),
        pytest.param(["--tracking-uri", "ftp://x"], ["--tracking-uri ftp://x", "sqlite:///"], id="unknown kind of URI"),
        pytest.param(["--address", "ray://host:1"], ["ray://", "host:port"], id="Ray Client"),
    ],
)
def test_bad_arguments(tmp_path: Path, command_line: CommandLine, arguments: list[str], told: list[str]) -> None:
    path = write_file(tmp_path, GOOD)
    message = refused(command_line("sweep", path, *arguments, "--runs-dir", tmp_path / "runs"))
    assert all(word in message for word in told), message
    assert not (tmp_path / "runs").exists()


def test_a_ray_that_does_not_answer(tmp_path: Path, command_line: CommandLine, closed_port: int) -> None:
    address = f"127.0.0.1:{closed_port}"
    path = write_file(tmp_path, GOOD)
    message = refused(command_line("sweep", path, "--address", address, "--runs-dir", tmp_path / "runs"))
    assert f"--address {address}: no server answers" in message
    assert not (tmp_path / "runs").exists()


def test_a_tracking_server_that_does_not_answer(tmp_path: Path, command_line: CommandLine, closed_port: int) -> None:
    uri = f"http://127.0.0.1:{closed_port}"
    path = write_file(tmp_path, GOOD)
    message = refused(command_line("sweep", path, "--tracking-uri", uri, "--runs-dir", tmp_path / "runs"))
    assert uri in message
    assert "no MLflow server answers" in message
    assert "--offline" in message
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("resources", "told"),
    [
        pytest.param("{gpus: 32}", ["resources.gpus", "32 GPUs", "device=cpu"], id="more GPUs than there are"),
        pytest.param("{cpus: 4096}", ["resources.cpus", "4096 processors"], id="more processors than there are"),
        pytest.param("{custom: {big: 1}}", ["resources.custom", "'big'", "--address"], id="what only a cluster has"),
    ],
)
def test_resources_that_this_machine_does_not_have(
    tmp_path: Path, command_line: CommandLine, resources: str, told: list[str]
) -> None:
    path = write_file(tmp_path, B + f"resources: {resources}\n")
    message = refused(command_line("sweep", path, "--runs-dir", tmp_path / "runs"))
    assert f"{path}:2: " in message
    assert all(word in message for word in told), message
    assert not (tmp_path / "runs").exists()


def test_a_gpu_that_no_trial_was_given(tmp_path: Path, command_line: CommandLine) -> None:
    path = write_file(tmp_path, B)
    message = refused(command_line("sweep", path, "device=cuda", "--runs-dir", tmp_path / "runs"))
    assert "resources: {gpus: 1}" in message
    assert not (tmp_path / "runs").exists()


def test_a_runs_directory_that_cannot_be_written(tmp_path: Path, command_line: CommandLine) -> None:
    path = write_file(tmp_path, B)
    for command in (["sweep", path], ["train"]):
        message = refused(command_line(*command, "--runs-dir", "/proc/runs"))
        assert "'/proc/runs' cannot be written" in message


@pytest.mark.parametrize("place", ["a-file", "a-file/runs"])
def test_a_file_in_the_place_of_the_runs_directory(tmp_path: Path, command_line: CommandLine, place: str) -> None:
    file = tmp_path / "a-file"
    file.touch()
    path = write_file(tmp_path, B)
    for command in (["sweep", path], ["sweep", path, "--dry-run"], ["train"], ["status"]):
        message = refused(command_line(*command, "--runs-dir", tmp_path / place))
        assert message == f"orchestrator: --runs-dir {tmp_path / place}: '{file}' is a file, not a folder\n"


def test_a_cache_that_cannot_be_written_is_no_fault_of_the_sweep_file(
    tmp_path: Path, command_line: CommandLine
) -> None:
    file = tmp_path / "sweep.yaml"
    folder = tmp_path / "images"
    folder.mkdir()
    Image.new("L", (8, 8)).save(folder / "0.png")
    file.write_text(f"name: small\nbase: [dataset=image_folder, 'dataset.root={folder}', evaluation=none]\n")
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "cache").touch()
    code, out, err = command_line("sweep", file, "--dry-run", "--runs-dir", tmp_path / "runs")
    assert (code, out) == (2, "")
    assert err.startswith("orchestrator: the dataset cannot be read, or kept in the cache: ")
    assert "runs/cache/datasets': Not a directory" in err
    assert "sweep.yaml" not in err


def test_a_store_that_is_asked_before_it_is_read(
    tmp_path: Path, command_line: CommandLine, closed_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    url = f"ftp://127.0.0.1:{closed_port}/x"
    assert f"--runs-dir {url}: the object store cannot be reached" in refused(command_line("status", "--runs-dir", url))


def test_an_override_without_a_name(tmp_path: Path, command_line: CommandLine) -> None:
    path = write_file(tmp_path, GOOD)
    for command in (["train"], ["sweep", path, "--dry-run"]):
        message = refused(command_line(*command, "=3", "--runs-dir", tmp_path / "runs"))
        assert "'=3' is not an override such as" in message


@pytest.mark.parametrize("command", ["resume", "status", "stop", "sync", "export", "plot", "report"])
def test_a_sweep_that_is_not_there(tmp_path: Path, command_line: CommandLine, command: str) -> None:
    (tmp_path / "ground_metrics").mkdir()
    (tmp_path / "ground_metrics" / "plan.json").write_text("{}")
    message = refused(command_line(command, "ground_metric", "--runs-dir", tmp_path))
    assert "no sweep called 'ground_metric'" in message
    assert "did you mean 'ground_metrics'" in message
    assert "there are no sweeps" in refused(command_line(command, "s", "--runs-dir", tmp_path / "empty"))
    assert not (tmp_path / "empty").exists()


def test_an_unknown_format(tmp_path: Path, command_line: CommandLine) -> None:
    message = refused(command_line("export", "s", "--format", "markdwon", "--runs-dir", tmp_path))
    assert "'markdwon'" in message
    assert "did you mean 'markdown'" in message


@pytest.mark.parametrize(
    ("override", "told"),
    [
        pytest.param("penalty.wieght=1", "penalty.weight", id="unknown option"),
        pytest.param("penalty=gradent", "'gradient'", id="unknown preset"),
        pytest.param("penalty.weight=-1", "at least 0", id="outside its domain"),
    ],
)
def test_training_one_trial(tmp_path: Path, command_line: CommandLine, override: str, told: str) -> None:
    assert told in refused(command_line("train", override, "--runs-dir", tmp_path / "runs"))
    assert not (tmp_path / "runs").exists()


def test_the_user_interface_before_any_sweep(tmp_path: Path, command_line: CommandLine) -> None:
    assert "there is no MLflow database" in refused(command_line("ui", "--runs-dir", tmp_path))


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        pytest.param(["--at", "bset"], ["--at bset", "last, best, epoch=K, seconds=S, or METRIC=VALUE"], id="at"),
        pytest.param(["--at", "fid=40"], ["--at fid=40", "has logged 'fid'"], id="at a metric nobody logged"),
        pytest.param(["--metrics", "exact_w2"], ["--metrics", "did you mean 'exact_w1'"], id="a metric nobody logged"),
        pytest.param(["--baseline", "hnd weight=1"], ["--baseline", "did you mean 'hand weight=1'"], id="a baseline"),
        pytest.param(
            ["--intervals", "bootstrap"], ["--intervals bootstrap: expected t or log"], id="a kind of interval"
        ),
        pytest.param(["--rows", "wieght"], ["--rows", "have no 'wieght'", "penalty.weight"], id="an axis"),
        pytest.param(["--rows", "weight=3"], ["no cell has penalty.weight=3; there are 1, 2"], id="a value"),
        pytest.param(["--rows", "weight="], ["expected NAME=VALUE"], id="a selection without a value"),
        pytest.param(["--feature-weights", "x"], ["--feature-weights needs --at best"], id="weights for nothing"),
        pytest.param(["--columns", "weight|"], ["--columns", "have no 'weight|'"], id="a malformed selection"),
    ],
)
def test_a_table_that_cannot_be_made(
    store: SweepStore, command_line: CommandLine, arguments: list[str], told: list[str]
) -> None:
    for entry in store.entries():
        finish(store, entry, {"exact_w1": 1.0})
    message = refused(command_line("export", "hand", *arguments, "--runs-dir", store.runs_dir))
    assert all(word in message for word in told), message


def test_a_sweep_of_which_nothing_has_come_to_its_end(store: SweepStore, command_line: CommandLine) -> None:
    message = refused(command_line("export", "hand", "--runs-dir", store.runs_dir))
    assert message == "orchestrator: there is nothing to show yet: no trial of 'hand' has ended\n"
