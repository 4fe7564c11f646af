"""A trial's final generator as a graph of torch's own operators with its weights, without our code.

It is traced and written in a process of its own, see :class:`GeneratorProcess`: torch's tracer takes hundreds of
megabytes that a process does not give back, and torch may end the whole process where a Python function would raise.
"""

from __future__ import annotations

import contextlib
import functools
import io
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from orchestrator.store import checkpoints
from trainers.config import TrialConfig
from trainers.networks import Network, Shape
from trainers.parts import ConfigError

if TYPE_CHECKING:
    from torch import Tensor
    from torch.export import ExportedProgram

PROGRAM = (
    "import sys; sys.path.insert(0, sys.argv.pop(1)); import orchestrator, trainers; del sys.path[0]; "
    "from orchestrator.tracking.generators import answer_requests; answer_requests()"
)
"""The process's program. Our packages are those in the folder that is its argument: they may not be installed."""
OUR_FOLDER = Path(__file__).resolve().parents[2]


class NoGenerator(Exception):
    """A trial has no final generator; the message says why."""


class NotSaved(Exception):
    """A generator could not be written this time; the message says why."""


@dataclass(frozen=True)
class Saved:
    """A generator that was written: noise (m, ``latent_size``) to examples of ``shape``, after ``epoch`` epochs."""

    latent_size: int
    shape: tuple[int, ...]
    epoch: int
    torch: str
    """The version of torch that wrote it."""


class GeneratorProcess:
    """Writes the generators of many trials in one process, which starts with the first of them.

    The process ends with the context, and when this process ends, however it does. It is in a session of its own, so
    that Ctrl-C reaches only this process, which then leaves the context. After a crash the next trial gets a new one.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> GeneratorProcess:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def save(self, config: Mapping[str, Any], checkpoint: Path, file: Path) -> Saved:
        """Writes the generator of a checkpoint into ``file``, with :func:`save_generator`.

        Raises :class:`NoGenerator` if there is none, and :class:`NotSaved` for every other error of the process. What
        can be known without torch starts no process.
        """
        _with_generator(config, checkpoint)
        request = {"config": dict(config), "checkpoint": str(checkpoint), "file": str(file)}
        line = ""
        with contextlib.suppress(BrokenPipeError):
            process = self._running()
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(f"{json.dumps(request)}\n")
            process.stdin.flush()
            line = process.stdout.readline()
        if not line.endswith("\n"):
            raise NotSaved(f"the process that writes generators {self._end()}")
        answer = json.loads(line)
        if "none" in answer:
            raise NoGenerator(answer["none"])
        if "error" in answer:
            raise NotSaved(answer["error"])
        return Saved(**{**answer, "shape": tuple(answer["shape"])})

    def _running(self) -> subprocess.Popen[str]:
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", PROGRAM, str(OUR_FOLDER)],  # -P: not from the working directory
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                start_new_session=True,
            )
        return self._process

    def _end(self) -> str:
        """Ends a process that does not answer any more. Returns how it had ended."""
        assert self._process is not None
        with contextlib.suppress(BrokenPipeError):  # what it did not read
            self._process.communicate()
        code, self._process = self._process.returncode, None
        if code < 0:
            return f"was ended by {signal.Signals(-code).name}"
        return f"ended with exit code {code}"


def answer_requests() -> None:
    """The process's program: answers each line of JSON on standard input by one on standard output.

    It ends at once when standard input ends, in the middle of a trial too.
    """
    requests: queue.Queue[str] = queue.Queue()

    def read() -> None:
        for line in sys.stdin:
            requests.put(line)
        os._exit(0)

    threading.Thread(target=read, daemon=True).start()
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints is no answer
    while True:
        _answer(json.loads(requests.get()), answers)


def _answer(request: Mapping[str, Any], answers: TextIO) -> None:
    answer: dict[str, Any]
    try:
        answer = asdict(save_generator(request["config"], Path(request["checkpoint"]), Path(request["file"])))
    except NoGenerator as why:
        answer = {"none": str(why)}
    except Exception as error:  # torch raises many types
        answer = {"error": " ".join(f"{type(error).__name__}: {error}".splitlines()[0].split())}
    print(json.dumps(answer), file=answers, flush=True)


def save_generator(config: Mapping[str, Any], checkpoint: Path, file: Path) -> Saved:
    """Writes the generator of a checkpoint into ``file``. It is the moving average if there is one, as in evaluations.

    The graph takes noise, float32 of shape (m, latent size), to images in [−1, 1] of shape (m, C, H, W) or to points
    (m, d). Raises :class:`NoGenerator` if the trial was not trained with a generator, if its checkpoint cannot be used,
    or if torch cannot trace the network; OSError if the file cannot be written.
    """
    import torch

    trial = _with_generator(config, checkpoint)
    try:
        state = checkpoints.read(checkpoint)["training"]
    except (checkpoints.Unreadable, OSError) as problem:
        raise NoGenerator(f"{checkpoint.name} cannot be used: {problem}") from None
    network, shape, weights = trial.network, trial.dataset.shape, _weights(state)
    try:
        program = _traced(network, shape)
    except Exception as error:  # torch.export raises many types
        raise NoGenerator(f"torch.export cannot trace it ({type(error).__name__})") from None
    with torch.no_grad():
        for name, tensor in program.state_dict.items():
            tensor.copy_(weights[name])
    content = io.BytesIO()
    torch.export.save(program, content)  # into memory: on a full disk torch ends the process
    file.write_bytes(content.getbuffer())
    epoch = -(-state["iteration"] // trial.epoch_length)
    return Saved(network.latent_size, tuple(shape), epoch, str(torch.__version__))


def _with_generator(config: Mapping[str, Any], checkpoint: Path) -> TrialConfig:
    """The configuration of a trial that has a generator. Raises :class:`NoGenerator`."""
    try:
        trial = TrialConfig.from_dict(dict(config))
    except ConfigError as error:  # written by another version
        raise NoGenerator(f"config.yaml cannot be used: {error}") from None
    if not trial.opponent.trained:
        raise NoGenerator(f"the critic's opponent was {trial.opponent.words}")
    if not checkpoint.exists():
        raise NoGenerator(f"{checkpoint.name} has been deleted")
    return trial


@functools.lru_cache(maxsize=4)
def _traced(network: Network, shape: Shape) -> ExportedProgram:
    """The graph of a network's generator for any number of examples. The caller replaces its weights."""
    import torch

    module = network.build_generator(shape).eval()
    noise = torch.zeros(2, network.latent_size)  # with a single example torch would fix the batch size at 1
    return torch.export.export(module, (noise,), dynamic_shapes=({0: torch.export.Dim.AUTO},))


def _weights(state: Mapping[str, Any]) -> dict[str, Tensor]:
    """The weights of the generator in a checkpoint, averaged if there is a moving average."""
    if state["average"] is None:
        return state["generator"]
    prefix = "module."
    return {key.removeprefix(prefix): value for key, value in state["average"].items() if key.startswith(prefix)}
