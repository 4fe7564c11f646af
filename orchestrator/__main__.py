"""``python -m orchestrator`` is the program ``orchestrator``."""

from __future__ import annotations

from orchestrator.cli import program

if __name__ == "__main__":
    program()
