"""Prints the requirements in pyproject.toml, one per line: to build and run the package, and those of named extras."""

import argparse
import tomllib
from pathlib import Path
from typing import Any


def wanted(pyproject: dict[str, Any], extras: list[str], *, only: bool) -> list[str]:
    """The requirements of a pyproject.toml. Raises KeyError for an extra that it does not have."""
    project = pyproject["project"]
    own = [] if only else pyproject["build-system"]["requires"] + project["dependencies"]
    return own + [each for extra in extras for each in project["optional-dependencies"][extra]]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("extras", nargs="*")
    parser.add_argument("--only", action="store_true", help="print only the extras")
    arguments = parser.parse_args()
    table = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))
    print(*wanted(table, arguments.extras, only=arguments.only), sep="\n")
