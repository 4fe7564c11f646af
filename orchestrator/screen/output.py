"""Standard output and standard error that end no command when they cannot be written, for example on a full disk."""

from __future__ import annotations

import io
import sys


class Output(io.TextIOWrapper):
    """A standard stream. Its first failure is told on standard error.

    A closed pipe ends the command, as usual, unless :func:`outlive_closed_pipes` was called.
    """

    problem: OSError | None = None
    outlives_closed_pipe = False

    @classmethod
    def instead_of(cls, stream: io.TextIOWrapper) -> Output:
        """The same stream. Characters that its encoding lacks, such as '·', are replaced."""
        return cls(stream.buffer, stream.encoding, "replace", line_buffering=stream.line_buffering)

    def write(self, text: str) -> int:
        try:
            return super().write(text)
        except OSError as error:
            self._tell(error)
            return len(text)

    def flush(self) -> None:
        try:
            super().flush()
        except OSError as error:
            self._tell(error)

    def _tell(self, error: OSError) -> None:
        if isinstance(error, BrokenPipeError) and not self.outlives_closed_pipe:
            raise error
        first, self.problem = self.problem is None, error
        if first and self is not sys.stderr:
            print(f"orchestrator: standard output cannot be written: {error.strerror}", file=sys.stderr, flush=True)


def outlive_closed_pipes() -> None:
    """Lets the command go on when nobody reads its output any more, as in ``orchestrator sweep FILE | head``.

    For commands with results besides what they print. Rich would end them wherever they print next.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, Output):
            stream.outlives_closed_pipe = True


def output_lost() -> bool:
    """Whether part of what was printed could not be written."""
    if not isinstance(sys.stdout, Output):
        return False
    sys.stdout.flush()
    return sys.stdout.problem is not None
