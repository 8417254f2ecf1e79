"""The same tasks on a Ray cluster: each asks for a core or a GPU, and Ray finds it, restarts and places it.

Results lie where the task was told to put them, so a folder that all machines share keeps checkpoints too, and a task
of a lost machine goes on from its last one elsewhere. Without such a folder files come back through Ray's object store.
"""

from __future__ import annotations

import logging
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from functools import cache
from pathlib import Path
from typing import Any

from magic3d_cli.atomic import write_atomically
from magic3d_cli.batch.pool import MEMORY, TRIES, Progress
from magic3d_cli.batch.tasks import Task
from magic3d_cli.batch.worker import run_task
from magic3d_cli.checks import expanded
from magic3d_cli.errors import EnvironmentFault, first_line
from magic3d_cli.run.interrupts import Interrupts

LOCAL = "local"
"""In place of an address: a cluster of this machine alone, for the duration."""
PULSE, MISSED = 2.0, 8
"""Seconds between two attempts to reach a cluster's head, and how many fail in a row before it counts as lost."""
Made = tuple[dict[str, Any], dict[str, bytes]]
"""A task's record, and the bytes of its files by path."""


def make(task: dict[str, Any], options: dict[str, Any]) -> Made:
    """Make a task in a process of Ray's, which keeps its priors for the next one."""
    Path(task["output"]).parent.mkdir(parents=True, exist_ok=True)
    record = run_task(task, options, lambda event: None, Interrupts(), _kept())
    return record, {file: Path(file).read_bytes() for file in record.get("files", ())}


@cache
def _kept() -> dict[Any, Any]:
    """Priors that this process has loaded."""
    return {}


def run_tasks(
    tasks: Sequence[Task],
    options: dict[str, Any],
    address: str,
    interrupts: Interrupts,
    changed: Callable[[Progress], None],
    make: Callable[[dict[str, Any], dict[str, Any]], Made] = make,
) -> list[dict[str, Any]]:
    """As `pool.run_tasks`, on the cluster at an address, or LOCAL. Raises EnvironmentFault where there is none."""
    with _connected(address) as ray:
        gpu = options["device"] != "cpu" and ray.cluster_resources().get("GPU", 0) > 0
        wanted: dict[str, Any] = {"num_gpus": 1} if gpu else {"num_cpus": 1, "memory": MEMORY}
        remote = ray.remote(max_retries=TRIES, **wanted)(make)
        waiting = {remote.remote(task.to_json() | _absolute(task), options): task for task in tasks}
        progress, records = Progress(len(tasks)), dict[str, dict[str, Any]]()
        # A cluster behind ray:// is reached through a process of its own, which notices by itself.
        head = None if address.startswith("ray://") else _Head(ray.get_runtime_context().gcs_address)
        try:
            while waiting:
                interrupts.check()
                if head is not None and not head.answers():
                    for task in waiting.values():
                        what = f"The Ray cluster at {head.address} does not answer any more."
                        records[task.output] = task.failure(what, "The same command begins it again.")
                        progress.records.append(records[task.output])
                    waiting.clear()
                    changed(progress)
                    break
                for ref in ray.wait(list(waiting), timeout=0.2)[0]:
                    task = waiting.pop(ref)
                    records[task.output] = _taken(ray, ref, task)
                    progress.records.append(records[task.output])
                    changed(progress)
        finally:
            for ref in waiting:
                ray.cancel(ref)
        return [records[task.output] for task in tasks]


class _Head:
    """The process that knows a cluster. When it is gone, Ray ends this one after a minute without a word to it."""

    def __init__(self, address: str) -> None:
        self.address, self._missed, self._next = address, 0, 0.0

    def answers(self) -> bool:
        """Whether it took a connection at one of the last attempts."""
        if time.monotonic() < self._next:
            return True
        host, _, port = self.address.rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=PULSE).close()
            self._missed = 0
        except OSError:
            self._missed += 1
        self._next = time.monotonic() + PULSE
        return self._missed < MISSED


@contextmanager
def _connected(address: str) -> Iterator[Any]:
    """Ray, connected for the duration; what it prints of lost tasks goes to stderr, for stdout is the summary's."""
    try:
        import ray
    except ImportError as error:
        raise EnvironmentFault("Ray is not installed.", "pip install ray, or leave out --ray.") from error
    with redirect_stdout(sys.stderr):
        try:
            ray.init(address=None if address == LOCAL else address, log_to_driver=False, logging_level=logging.ERROR)
        except Exception as error:  # a ConnectionError, a ValueError or one of Ray's own, by version
            raise EnvironmentFault(
                f"There is no Ray cluster at {address}: {first_line(error)}",
                f"Start one: ray start --head; or use --ray {LOCAL}.",
            ) from error
        try:
            yield ray
        finally:
            ray.shutdown()


def _absolute(task: Task) -> dict[str, Any]:
    """A task's files as other processes find them."""
    beside = {"image": task.image, "style": task.style}
    found = {name: str(expanded(path).absolute()) if path else None for name, path in beside.items()}
    return found | {"output": str(Path(task.output).absolute())}


def _taken(ray: Any, ref: Any, task: Task) -> dict[str, Any]:
    """The record of a task that has ended, and its files where they are not here yet."""
    try:
        record, files = ray.get(ref)
    except ray.exceptions.RayError as error:
        what = f"Its process or machine was lost {TRIES + 1} times, or Ray failed: {first_line(error)}"
        return task.failure(what, "The same command begins it again.")
    for path, data in files.items():
        if not Path(path).is_file():
            write_atomically(Path(path), data)
    return {**record, "output": task.output, "image": task.image, "style": task.style}
