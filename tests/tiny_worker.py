"""A batch's worker whose jobs are tiny; a prompt that says "die" kills it once."""

from __future__ import annotations

import os
import signal
import sys
import time
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from tiny_run import play_tiny

from magic3d_cli import job
from magic3d_cli.batch import ray_pool, worker


@cache
def prepare() -> None:
    """Make this process's jobs tiny."""
    play_tiny(pytest.MonkeyPatch())
    made = job.generate

    def generate(prompt: str, *rest: Any, **more: Any) -> Any:
        died = Path("died")
        if "die" in prompt.split() and ("always" in prompt or not died.exists()):
            died.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if "impossible" in prompt:
            raise ValueError("no such thing")
        return made(prompt, *rest, **more)

    job.generate = generate


def make(task: dict[str, Any], options: dict[str, Any]) -> ray_pool.Made:
    """A tiny task for Ray. One that is to wait says where it is, and the first of its tries never ends."""
    prepare()
    folder = Path(task["output"]).parent
    if "wait" in task["prompt"]:
        import ray

        first = not (folder / "began").exists()
        (folder / "began").write_text(ray.get_runtime_context().get_node_id())
        while first:
            time.sleep(0.1)
    return ray_pool.make(task, options)


if __name__ == "__main__":
    prepare()
    sys.exit(worker.serve())
