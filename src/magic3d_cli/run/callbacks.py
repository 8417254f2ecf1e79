"""What happens between two steps: log, show, stop when asked, save when due, draw when due."""

from __future__ import annotations

import io
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from magic3d_cli.atomic import write_atomically
from magic3d_cli.errors import out_of_memory
from magic3d_cli.run.directory import RunDirectory
from magic3d_cli.run.interrupts import Interrupted, Interrupts
from magic3d_cli.run.observer import Observer
from magic3d_cli.run.timings import Timings
from magic3d_cli.scene.render import Render
from magic3d_cli.scene.views import Views, turntable
from magic3d_cli.training.distributed import Processes
from magic3d_cli.training.report import StepReport


class Drawable(Protocol):
    """A stage, as far as these callbacks are concerned."""

    def render(self, views: Views, size: int) -> Render: ...


@dataclass(frozen=True)
class Intervals:
    """How often things are written, in seconds of wall time. None of it changes the result."""

    checkpoint: float = 60.0  # the most that `kill -9` loses
    preview: float = 10.0
    preview_share: float = 0.05  # previews may cost at most this share of the time
    preview_size: int = 256  # pixels a view, of two by two
    film: float = 1.0  # between two frames of the film, which grows as there are more of them
    film_share: float = 0.04
    film_size: int = 128  # pixels, half as many where that takes too long


FRAMES = 240
"""Of a film, at most: when there are as many, every other one goes, and from then on half as many are taken."""
_LAST = 4.0  # times the expense of a preview for a stage's last one, which stays


class Callbacks:
    """Called after every step of one stage. Only reads the stage, so that saving changes no result."""

    def __init__(
        self,
        run: RunDirectory,
        stage: Drawable,
        save: Callable[[], None],
        timings: Timings,
        observer: Observer,
        interrupts: Interrupts,
        intervals: Intervals,
        processes: Processes,
    ) -> None:
        self.run, self.stage, self.save, self.timings = run, stage, save, timings
        self.observer, self.interrupts, self.intervals, self.processes = observer, interrupts, intervals, processes
        now = self._last = time.monotonic()
        self._next_checkpoint = now + intervals.checkpoint
        # The first picture comes at once: a sign of life.
        self._next_preview = now + (intervals.preview if run.preview.is_file() else 0)
        self._shown = run.preview.is_file()  # its place has been told
        self._seconds_per_pixel: float | None = None  # of a view, in the last picture
        self._next_frame, self._between = now, intervals.film
        self._filmed, self._film_size = False, max(intervals.film_size // 2, 1)

    def __call__(self, report: StepReport) -> None:
        """Raises Interrupted (after saving) and OSError (when a checkpoint cannot be written)."""
        now = time.monotonic()
        self.timings.add_step(report)
        self.timings.add(report.stage, now - self._last)  # step by step, so that a checkpoint has it all
        self._last = now
        self.run.log("step", stage=report.stage, step=report.step, **_rounded(report))
        self.observer.step(report)
        if report.metrics.get("skipped") == 1:  # counted in a row
            self.observer.note(f"{report.stage} step {report.step} was skipped: its gradient was not finite.")
        if self.processes.any(self.interrupts.pending is not None):
            self.save()
            self.interrupts.check()
            raise Interrupted(signal.SIGTERM)  # another process was told to stop
        if time.monotonic() >= self._next_checkpoint:
            self.save()
            self._next_checkpoint = time.monotonic() + self.intervals.checkpoint
        if time.monotonic() >= self._next_preview:
            self.draw()
        if time.monotonic() >= self._next_frame:
            self.film(report)

    def draw(self, last: bool = False) -> None:
        """Replace preview.png; a stage's `last` one may cost more.

        A preview is a convenience: neither a full disk nor full memory stops the run here.
        """
        begun = time.monotonic()
        size = self._affordable(_LAST if last else 1.0)
        try:
            images = self.stage.render(turntable(4, start=20.0), size).rgb
            write_preview(self.run.preview, images, self.intervals.preview_size)
            if not self._shown:
                self._shown = True
                self.observer.note(f"Watch the shape appear: {self.run.preview}")
        except (OSError, RuntimeError, MemoryError) as error:
            if not (isinstance(error, OSError) or out_of_memory(error)):
                raise
        now = time.monotonic()
        self._next_preview = now + max(self.intervals.preview, (now - begun) / self.intervals.preview_share)
        self._seconds_per_pixel = (now - begun) / size**2

    def film(self, report: StepReport) -> None:
        """Add a frame to the run's film; as little as a preview does it stop the run."""
        begun = time.monotonic()
        try:
            self.run.film.mkdir(exist_ok=True)
            if report.step == 1:  # a stage that starts over
                for path in self.run.film.glob(f"{report.stage}-*.webp"):
                    path.unlink()
            image = self.stage.render(turntable(1, start=30.0), self._film_size).rgb
            write_frame(self.run.film / f"{report.stage}-{report.step:06d}.webp", image[0])
            if len(frames := film_frames(self.run)) >= FRAMES:
                for path in frames[1::2]:
                    path.unlink()
                self._between *= 2
        except (OSError, RuntimeError, MemoryError) as error:
            if not (isinstance(error, OSError) or out_of_memory(error)):
                raise
        now = time.monotonic()
        # The first one may have waited for kernels to be compiled: it says nothing of what the next ones take.
        rest = (now - begun) / self.intervals.film_share if self._filmed else 0.0
        self._next_frame, self._filmed = now + max(self._between, rest), True
        full = (now - begun) * (self.intervals.film_size / self._film_size) ** 2
        cheap = full <= 2 * self._between * self.intervals.film_share
        self._film_size = self.intervals.film_size if cheap else max(self.intervals.film_size // 2, 1)

    def _affordable(self, times: float) -> int:
        """Pixels a view that can be drawn for `times` a picture's share of the time: all, a half or a quarter.

        Marching a volume on a CPU in full size would cost a draft's whole share at once.
        """
        sizes = [max(self.intervals.preview_size // part, 1) for part in (1, 2, 4)]
        if self._seconds_per_pixel is None:
            return sizes[1]
        budget = times * self.intervals.preview * self.intervals.preview_share
        return next((size for size in sizes if self._seconds_per_pixel * size**2 <= budget), sizes[-1])


def film_frames(run: RunDirectory) -> list[Path]:
    """The frames of a run's film, first to last: film/coarse-000012.webp, ..."""
    return sorted(run.film.glob("*.webp"))  # "coarse" sorts before "fine"


def write_frame(path: Path, image: Float[Tensor, "H W 3"]) -> None:
    """One frame of a film. Raises OSError."""
    pixels = np.rint(image.detach().clamp(0, 1).cpu().numpy() * 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "WEBP", quality=80, method=2)
    write_atomically(path, buffer.getvalue(), durable=False)


def write_preview(path: Path, images: Float[Tensor, "4 H W 3"], size: int) -> None:
    """PNG of the images two by two, each enlarged to `size` pixels. Raises OSError."""
    pixels = np.rint(images.detach().clamp(0, 1).cpu().numpy() * 255).astype(np.uint8)
    sheet = Image.new("RGB", (2 * size, 2 * size))
    for number, view in enumerate(pixels):
        picture = Image.fromarray(view).resize((size, size), Image.Resampling.BICUBIC)
        sheet.paste(picture, (number % 2 * size, number // 2 * size))
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG")
    write_atomically(path, buffer.getvalue(), durable=False)


def _rounded(report: StepReport) -> dict[str, Any]:
    """Metrics and timings short enough for a log of thousands of lines."""
    return {
        "metrics": {key: float(f"{value:.5g}") for key, value in report.metrics.items()},
        "seconds": {key: round(value, 4) for key, value in report.seconds.items()},
    }
