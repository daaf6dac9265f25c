"""The `wm` command. One file per command; each parses its arguments and delegates."""

from wm.cli.app import app, main

__all__ = ["app", "main"]
