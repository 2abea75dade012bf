"""The command line: ``flexseg …``."""

from flexseg.cli.commands import app, main

__all__ = ["app", "main"]
