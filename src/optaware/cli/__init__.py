"""The command line: one file per command group; nothing heavy is imported before a command needs it."""

from optaware.cli._app import main

__all__ = ["main"]
