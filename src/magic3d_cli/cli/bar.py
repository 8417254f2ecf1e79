"""The live progress bar, on a terminal."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from magic3d_cli.cli.progress import Display, clock, summary

if TYPE_CHECKING:  # would import torch
    from magic3d_cli.training.report import StepReport


class Bar(Display):
    """A live bar: stage, step, the metrics that mean something, elapsed and remaining time."""

    def __init__(self) -> None:
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[count]}", markup=False),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[metrics]}", style="dim", markup=False),
            console=Console(stderr=True),
        )
        self._task: TaskID | None = None

    def __enter__(self) -> Bar:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()
        self._progress.stop()

    def begin(self, stage: str, done: int, total: int) -> None:
        self._open(stage, total)
        self._update(done, total, "")

    def step(self, report: StepReport) -> None:
        self._update(report.step, report.total, summary(report.metrics))

    def phase(self, name: str) -> None:
        self._open(name, None)

    def note(self, text: str) -> None:
        self._progress.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def _open(self, name: str, total: int | None) -> None:
        self._close()
        self._task = self._progress.add_task(name, total=total, count="", metrics="")

    def _update(self, done: int, total: int, metrics: str) -> None:
        if self._task is not None:
            self._progress.update(self._task, completed=done, count=f"{done}/{total}", metrics=metrics)

    def _close(self) -> None:
        """Leave one line of what is done, and take the bar away."""
        if self._task is None:
            return
        task = next(t for t in self._progress.tasks if t.id == self._task)
        self.note(f"{task.description}  {task.fields['count']}  {clock(task.elapsed or 0)}".replace("    ", "  "))
        self._progress.remove_task(self._task)
        self._task = None
