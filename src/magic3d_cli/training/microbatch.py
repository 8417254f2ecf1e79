"""Steps that fit the memory there is: a batch of views in as many parts as it takes, with the gradient of the whole."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch

from magic3d_cli.errors import out_of_memory
from magic3d_cli.scene.views import Views
from magic3d_cli.training.distributed import current

T = TypeVar("T")


class Portions:
    """How many views are worked on at once: all of a step's, until memory runs out; then half as many, and so on."""

    def __init__(self) -> None:
        self.at_once: int | None = None

    def accumulate(
        self,
        views: Views,
        generator: torch.Generator,
        compute: Callable[[Views, slice, float], T],
        forget: Callable[[], None],
    ) -> list[T]:
        """The results of `compute(part, rows, share)` for parts that cover the views.

        Args:
            compute: adds the gradient of its part, `rows` of the views and this `share` of their number.
            forget: clears gradients, before everything is computed again in smaller parts.

        An error that is `out_of_memory` is raised when a single view is too much. Processes that share out a step agree
        on the parts, because the random numbers that each draws depend on them.
        """
        ranks, before = current(), generator.get_state()
        while True:
            at_once = min(self.at_once or len(views), len(views))
            results, short = [], False
            try:
                for first in range(0, len(views), at_once):
                    rows = slice(first, min(first + at_once, len(views)))
                    results.append(compute(views[rows], rows, (rows.stop - first) / len(views)))
            except (RuntimeError, MemoryError) as error:
                if at_once == 1 or not out_of_memory(error):
                    raise
                short = True
            if not ranks.any(short):
                return results
            self.at_once = max(at_once // 2, 1)
            generator.set_state(before)
            forget()
            results.clear()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
