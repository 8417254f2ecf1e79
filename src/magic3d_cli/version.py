"""The version, which files and checkpoints say they were written with."""

__version__ = "0.1.0"
