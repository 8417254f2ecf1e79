"""Who is told what a run is doing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # would import torch, which --help must not wait for
    from magic3d_cli.settings import Settings
    from magic3d_cli.training.report import StepReport


class Observer:
    """Listens and says nothing; the command line's progress display says it."""

    def expect(self, settings: Settings, priors: dict[str, str]) -> None:
        """A whole job of these settings begins, each stage guided by the prior of that name."""

    def begin(self, stage: str, done: int, total: int) -> None:
        """A stage of `total` steps begins, or goes on after `done`."""

    def step(self, report: StepReport) -> None:
        """A step is done."""

    def phase(self, name: str) -> None:
        """A part without steps begins, for example "unwrap"."""

    def compiling(self) -> None:
        """Kernels are being compiled, which the cache spares later runs."""

    def note(self, text: str) -> None:
        """Something worth knowing: resumed, set aside, fell back."""

    def done(self, report: dict[str, Any]) -> None:
        """The asset is written; the report is what --json prints."""
