"""Writes the reference of the command line from the program itself, so that it cannot differ from ``--help``."""

from __future__ import annotations

import inspect
from typing import Any

PLACE = "<!-- commands -->"


def on_page_markdown(markdown: str, **_: Any) -> str:
    """MkDocs calls this for every page: the page with the marker gets the commands in its place."""
    return markdown.replace(PLACE, commands()) if PLACE in markdown else markdown


def commands() -> str:
    """One section for each visible command: what it does, its arguments and its options, in the program's words."""
    from typer.main import get_command

    from orchestrator.cli import app

    program = get_command(app)
    return "\n".join(_section(name, command) for name, command in program.commands.items() if not command.hidden)


def _section(name: str, command: Any) -> str:
    arguments = [each for each in command.params if each.param_type_name == "argument"]
    options = [each for each in command.params if each.param_type_name == "option" and not each.hidden]
    words = " ".join(_metavar(each) for each in arguments)
    lines = [f"## {name}", "", f"    orchestrator {name} [OPTIONS] {words}".rstrip(), ""]
    lines += [inspect.cleandoc(command.help or ""), ""]
    lines += [f"- `{_metavar(each)}`: {each.help}" for each in arguments if each.help]
    lines += [f"- `{_names(each)}`: {each.help}{_default(each)}" for each in options]
    return "\n".join([*lines, ""])


def _metavar(argument: Any) -> str:
    return str(argument.metavar or argument.name.upper())


def _names(option: Any) -> str:
    value = "" if option.is_flag else f" {option.metavar or 'VALUE'}"
    return ", ".join(option.opts) + value


def _default(option: Any) -> str:
    if option.is_flag or option.default in (None, "") or option.multiple:
        return ""
    return f" Default: `{option.default}`."
