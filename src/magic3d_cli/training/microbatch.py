"""Gradient accumulation that halves the micro-batch when memory runs out, with the gradient of the whole step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

from magic3d_cli.errors import out_of_memory
from magic3d_cli.training.distributed import Processes

T = TypeVar("T")


class MicroBatches:
    """How many views are rendered at once: all of a batch, until memory runs out; then half as many, and so on."""

    def __init__(self) -> None:
        self.at_once: int | None = None

    def run(
        self,
        sizes: Sequence[int],
        together: Sequence[int],
        generator: torch.Generator,
        compute: Callable[[int, slice, float], T],
        zero_grad: Callable[[], None],
        processes: Processes,
    ) -> list[tuple[int, T]]:
        """Batch index and result of `compute(batch, rows, fraction)` for parts that cover all batches.

        Args:
            sizes: views of each of the step's batches.
            together: views of a set, of each batch: no set is split.
            compute: adds the gradient of `rows` of a batch, which are this fraction of its views.
            zero_grad: clears all gradients, before the whole step is computed again in smaller parts.

        An error that is `out_of_memory` is raised when a single view, or set, is too much. Processes that share a step
        agree on the parts, because the random numbers that each draws depend on them.
        """
        before, largest = generator.get_state(), max(sizes)
        while True:
            at_once = min(self.at_once or largest, largest)
            results: list[tuple[int, T]] = []
            short = False
            try:
                for batch, size in enumerate(sizes):
                    part = max(at_once // together[batch], 1) * together[batch]
                    for first in range(0, size, part):
                        rows = slice(first, min(first + part, size))
                        results.append((batch, compute(batch, rows, (rows.stop - first) / size)))
            except (RuntimeError, MemoryError) as error:
                if at_once <= min(together) or not out_of_memory(error):
                    raise
                short = True
            if not processes.any(short):
                return results
            self.at_once = max(at_once // 2, 1)
            generator.set_state(before)
            zero_grad()
            results.clear()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
