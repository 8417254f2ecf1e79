"""A batch's worker whose jobs are tiny; a prompt that says "die" kills it once."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest
from tiny_run import play_tiny

from magic3d_cli import job
from magic3d_cli.batch import worker

if __name__ == "__main__":
    play_tiny(pytest.MonkeyPatch())
    made = job.generate

    def generate(prompt, *rest, **more):  # type: ignore[no-untyped-def]
        died = Path("died")
        if "die" in prompt.split() and ("always" in prompt or not died.exists()):
            died.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if "impossible" in prompt:
            raise ValueError("no such thing")
        return made(prompt, *rest, **more)

    job.generate = generate
    sys.exit(worker.serve())
