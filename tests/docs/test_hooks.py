"""What the site is built with: the page of the command line, and the docstrings' roles as Markdown."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest
from typer.main import get_command

from orchestrator.cli import app

HOOKS = Path(__file__).parents[2] / "docs" / "hooks"


def test_the_page_of_the_command_line_has_every_command_and_every_option() -> None:
    sections = runpy.run_path(str(HOOKS / "command_line.py"))["commands"]().split("## ")[1:]
    written = {section.split("\n", 1)[0]: section for section in sections}
    shown = {name: command for name, command in get_command(app).commands.items() if not command.hidden}
    assert list(written) == list(shown)
    for name, command in shown.items():
        assert command.help.split("\n", 1)[0] in written[name]
        for parameter in command.params:
            if parameter.param_type_name == "option" and not parameter.hidden:
                assert parameter.opts[-1] in written[name]
                assert parameter.help in written[name]


def test_roles_and_literals_of_docstrings_become_code() -> None:
    pytest.importorskip("griffe", reason="the site's tools are not installed")
    to_markdown = runpy.run_path(str(HOOKS / "rst_roles.py"))["to_markdown"]
    assert to_markdown("A :class:`~trainers.pair.Pair`, ``a = [1]``::\n\n    code") == (
        "A `trainers.pair.Pair`, `a = [1]`:\n\n    code"
    )
