"""The program ``orchestrator``, and ``python -m orchestrator``.

Python itself may have put the working directory into the search path for modules: in front for ``python -m``, and for
an empty entry of ``PYTHONPATH``, as in ``PYTHONPATH=:/my/lib``. A file there must not take the place of a library. So
the directory leaves the path before anything else is imported. A folder that ``PYTHONPATH`` names is searched.
"""

from __future__ import annotations

import os
import sys

OUR_FOLDER = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
"""The folder that holds our packages."""


def program() -> None:
    """Runs the program."""
    leave_out_the_working_directory()
    from orchestrator.cli import program as run

    run()


def leave_out_the_working_directory() -> None:
    """Takes the working directory out of this process's search path and out of that of the processes that it starts.

    Our packages may lie there, in a checkout that is not installed. Both are imported before, and know their folders.
    Not even the last place is safe: a module there would hide a namespace package, such as ``google``, in any other.
    """
    os.environ["PYTHONSAFEPATH"] = "1"
    entries = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    named = [entry for entry in entries if entry]
    if len(named) < len(entries):
        os.environ["PYTHONPATH"] = os.pathsep.join(named)  # Python takes an empty value for none
    try:
        here = os.getcwd()
    except FileNotFoundError:  # it was deleted
        return
    if here == OUR_FOLDER:
        import trainers  # noqa: F401
    if not sys.flags.safe_path and sys.path[0] == here:
        del sys.path[0]
    if len(named) < len(entries) and here in sys.path and here not in map(os.path.abspath, named):
        sys.path.remove(here)


if __name__ == "__main__":
    program()
