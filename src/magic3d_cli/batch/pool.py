"""Worker processes on this machine, as many as its cores, GPUs and memory take, and what becomes of their tasks."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from magic3d_cli.batch.tasks import Task
from magic3d_cli.run.interrupts import Interrupts

COMMAND = (sys.executable, "-m", "magic3d_cli.batch.worker")
TRIES = 2
"""How often a task is begun whose process is killed from outside, for instance by the system for its memory."""
MEMORY = 2.0e9
"""Bytes of a worker with the built-in prior at the preset standard, and some to spare."""
PATIENCE = 60.0
"""Seconds that workers have to save what they are at, when they are told to stop."""


@dataclass
class Worker:
    """A process, its place in the team (which says its GPU), the task that it is at, and how far that is."""

    process: subprocess.Popen[str]
    number: int
    task: Task | None = None
    share: float = 0.0


@dataclass
class Progress:
    """How far a batch is: records in the order of their ends, and the shares of tasks that are being made."""

    total: int
    records: list[dict[str, Any]] = field(default_factory=list)
    shares: list[float] = field(default_factory=list)

    @property
    def share(self) -> float:
        return (len(self.records) + sum(self.shares)) / max(self.total, 1)


def size(tasks: int, cores: int, gpus: int, memory: float | None) -> int:
    """How many workers: one a GPU, else one a core, while there is memory for each; never more than tasks."""
    if gpus:
        return max(min(tasks, gpus), 1)
    room = int(memory // MEMORY) if memory is not None else cores
    return max(min(tasks, cores, room), 1)


def team_here(tasks: int, device: str, workers: int | None = None) -> tuple[int, int]:
    """How many workers this machine takes for so many tasks, and the GPUs that they share; `workers` overrides."""
    import torch

    from magic3d_cli.guidance.guide import free_memory

    gpus = torch.cuda.device_count() if device != "cpu" else 0
    if workers is not None:
        return min(workers, tasks), gpus
    return size(tasks, os.cpu_count() or 1, gpus, free_memory(torch.device("cpu"))), gpus


def run_tasks(
    tasks: Sequence[Task],
    options: dict[str, Any],
    workers: int,
    gpus: int,
    interrupts: Interrupts,
    changed: Callable[[Progress], None],
) -> list[dict[str, Any]]:
    """Have all tasks made; returns their records in the order of the tasks.

    A task that fails does not stop the others. One whose worker dies is begun again from its checkpoint, TRIES times in
    all, and then recorded as failed.

    Args:
        options: for all tasks, see `worker.run_task`.
        changed: is told whenever something ended or went on.

    Raises Interrupted when asked to stop: workers have saved what they were at.
    """
    waiting, tries = deque(tasks), dict.fromkeys((task.output for task in tasks), 0)
    events: queue.Queue[tuple[Worker, dict[str, Any] | None]] = queue.Queue()
    progress, team = Progress(len(tasks)), list[Worker]()

    def give(worker: Worker) -> None:
        """The next task, or the end of its input."""
        worker.task, worker.share = (waiting.popleft() if waiting else None), 0.0
        stdin = worker.process.stdin
        assert stdin is not None
        try:
            if worker.task is None:
                stdin.close()
            else:
                tries[worker.task.output] += 1
                stdin.write(json.dumps({"task": worker.task.to_json(), "options": options}) + "\n")
                stdin.flush()
        except OSError:
            pass  # it has died, which its reader tells

    def hire(number: int) -> None:
        worker = Worker(_start(number, workers, gpus), number)
        threading.Thread(target=_listen, args=(worker, events), daemon=True).start()
        team.append(worker)
        give(worker)

    try:
        for number in range(min(workers, len(tasks))):
            hire(number)
        while len(progress.records) < len(tasks):
            interrupts.check()
            try:
                worker, event = events.get(timeout=0.2)
            except queue.Empty:
                continue
            if event is None:
                _buried(worker, team, waiting, tries, progress)
                if waiting:
                    hire(worker.number)
            elif event["event"] == "done":
                progress.records.append(event["record"])
                give(worker)
            else:
                worker.share = event["share"]
            progress.shares = [worker.share for worker in team if worker.task is not None]
            changed(progress)
    finally:
        _dismiss(team)
    order = {task.output: number for number, task in enumerate(tasks)}
    return sorted(progress.records, key=lambda record: order[record["output"]])


def _start(number: int, workers: int, gpus: int) -> subprocess.Popen[str]:
    """A worker with its share of the cores, or a GPU of its own."""
    threads = str(max((os.cpu_count() or 1) // workers, 1))
    own = {name: os.environ.get(name, threads) for name in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS")}
    if gpus:
        listed = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
        own["CUDA_VISIBLE_DEVICES"] = listed[number % gpus] if listed != [""] else str(number % gpus)
    return subprocess.Popen(
        COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8", env=os.environ | own
    )


def _listen(worker: Worker, events: queue.Queue[tuple[Worker, dict[str, Any] | None]]) -> None:
    """Pass on what a worker says, and that it ended."""
    for event in _events(worker):
        events.put((worker, event))
    worker.process.wait()
    events.put((worker, None))


def _events(worker: Worker) -> Iterator[dict[str, Any]]:
    assert worker.process.stdout is not None
    for line in worker.process.stdout:
        try:
            yield json.loads(line)
        except ValueError:  # cut by its end
            return


def _buried(
    worker: Worker, team: list[Worker], waiting: deque[Task], tries: dict[str, int], progress: Progress
) -> None:
    """A worker has ended: what it was at is begun again, or has failed."""
    team.remove(worker)
    if worker.task is None:
        return
    if tries[worker.task.output] < TRIES:
        waiting.appendleft(worker.task)
        return
    what = f"Its process ended {TRIES} times ({_end(worker.process.returncode)})."
    following = "Use fewer --workers if memory is short, or make it alone."
    progress.records.append(worker.task.failure(what, following))


def _end(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"


def _dismiss(team: list[Worker]) -> None:
    """Let workers save and end; those that do not are killed."""
    for worker in team:
        if worker.process.poll() is None and worker.task is not None:
            worker.process.terminate()
        elif worker.process.stdin is not None and not worker.process.stdin.closed:
            worker.process.stdin.close()
    for worker in team:
        try:
            worker.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            worker.process.kill()
            worker.process.wait()
