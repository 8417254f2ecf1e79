"""The command line. Nothing here imports torch before a command has checked what it was given."""

from magic3d_cli.cli.app import main

__all__ = ["main"]
