"""The command line, run in this process."""

from __future__ import annotations

import pytest

from magic3d_cli.cli import main


def magic3d(*arguments: object) -> int:
    """Exit code of a command."""
    with pytest.raises(SystemExit) as stop:
        main([str(a) for a in arguments])
    return int(stop.value.code or 0)
