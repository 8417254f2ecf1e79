"""What the environment says before anything heavy is imported."""

from __future__ import annotations

import os


def is_main_process() -> bool:
    """False on torchrun's non-zero ranks, which print nothing."""
    return os.environ.get("RANK", "0") == "0"
