"""Progress on stderr: a live bar on a terminal, plain lines at intervals elsewhere, nothing with --quiet."""

from __future__ import annotations

import os
import shlex
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any

from magic3d_cli.run.observer import Observer

if TYPE_CHECKING:  # would import torch
    from magic3d_cli.run.forecast import Forecast
    from magic3d_cli.settings import Settings
    from magic3d_cli.training.report import StepReport

COMPILING = "compiling kernels (first run only)"
INTERVAL = 10.0  # seconds between plain lines
_TECHNICAL = ("time", "scale", "samples")  # metrics that are in the log but tell a person nothing


class Display(Observer):
    """An observer with a beginning and an end. This one shows nothing: --quiet."""

    def __enter__(self) -> Display:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Nothing is drawn meanwhile."""
        yield


class Tracker:
    """How far the whole job is, in words for a person; nothing where it is not known what the job consists of."""

    def __init__(self) -> None:
        self._forecast: Forecast | None = None

    def expect(self, settings: Settings, priors: dict[str, str]) -> None:
        """A whole job with these settings begins."""
        from magic3d_cli.run.forecast import Forecast, parts_of

        self._forecast = Forecast(parts_of(settings, priors))

    def begin(self, name: str, done: int) -> None:
        if self._forecast is not None:
            self._forecast.begin(name, done, time.monotonic())

    def step(self, step: int) -> None:
        if self._forecast is not None:
            self._forecast.step(step, time.monotonic())

    def compiling(self) -> None:
        if self._forecast is not None:
            self._forecast.compiling()

    def fraction(self) -> float | None:
        """Of the job's work, 0 to 1."""
        return None if self._forecast is None else self._forecast.fraction()

    def progress(self) -> list[str]:
        """Percent and time left, for instance ["45%", "1:23 left"]."""
        if self._forecast is None:
            return []
        left = self._forecast.left(time.monotonic())
        return [f"{self._forecast.fraction():4.0%}", "estimating" if left is None else f"{clock(left)} left"]


class Lines(Display):
    """One plain line at a time, for logs and pipes."""

    def __init__(self, verbose: bool = False) -> None:
        self._last = time.monotonic()
        self._tracker = Tracker()
        self._compiling = False
        self._verbose = verbose

    def expect(self, settings: Settings, priors: dict[str, str]) -> None:
        self.phase("prepare")
        self._tracker.expect(settings, priors)

    def begin(self, stage: str, done: int, total: int) -> None:
        self._last = time.monotonic()
        self._tracker.begin(stage, done)
        self.note(f"{stage}: step {done} of {total}")

    def step(self, report: StepReport) -> None:
        self._tracker.step(report.step)
        now = time.monotonic()
        if now - self._last < INTERVAL and report.step < report.total:
            return
        self._last = now
        parts = [part.strip() for part in self._tracker.progress()]
        parts += [summary(report.metrics)] if self._verbose else []
        self.note("  ".join([f"{report.stage}: step {report.step} of {report.total}", *parts]))

    def phase(self, name: str) -> None:
        self._tracker.begin(name, 0)
        self.note(name)

    def compiling(self) -> None:
        self._tracker.compiling()
        if not self._compiling:  # there are many kernels
            self._compiling = True
            self.note(COMPILING)

    def done(self, report: dict[str, Any]) -> None:
        for line in made(report):
            self.note(line)

    def note(self, text: str) -> None:
        with suppress(OSError, ValueError):  # a pipe that nobody reads any more is no reason to stop the work
            print(text, file=sys.stderr, flush=True)


def made(report: dict[str, Any]) -> list[str]:
    """Two lines at the end: what was made, and what can be done with it."""
    asset, output = report["asset"], report["output"]
    size = sum(os.path.getsize(file) for file in report["files"] if os.path.exists(file))
    facts = [f"{asset['faces']:,} triangles", f"texture {asset['texture_size']} px"]
    facts += [" x ".join(f"{side:.2g}" for side in asset["size"]["metres"]) + " m"]
    facts += [f"{size / 1e6:.1f} MB", f"made in {clock(sum(report['seconds'].values()))}"]
    name, other = shlex.quote(output), "glb" if output.endswith(".obj") else "obj"
    where = shlex.quote(report["run"]) if "run" in report else ""
    seen = f"magic3d preview {name}" if output.endswith((".glb", ".obj")) else ""
    converted = f"magic3d export {where} --format {other}" if where else ""
    steps = " or ".join(filter(None, (seen, converted)))
    return [f"{output}: {', '.join(facts)}", *([f"next: {steps}"] if steps else [])]


def summary(metrics: dict[str, float]) -> str:
    """The first three metrics that mean something to a person, where there is room for them."""
    shown = [(name, value) for name, value in metrics.items() if name not in _TECHNICAL]
    return "  ".join(f"{name} {value:.3g}" for name, value in shown[:3])


def clock(seconds: float) -> str:
    """Minutes and seconds: 0:05, 12:30, 1:02:03."""
    whole = round(seconds)
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
