"""The hot operations: each file holds a PyTorch reference beside its fast paths, and chooses by device."""

from __future__ import annotations

import threading
from collections.abc import Callable

NUMBA_LOCK = threading.RLock()
"""Held around every parallel numba call: numba's portable threading layer aborts on concurrent ones."""

ON_COMPILE: list[Callable[[], None]] = []
"""Called whenever numba begins to compile a kernel that was not in its cache."""


def lattice_points(step: float) -> int:
    """How many points `step` apart lie on a ray through [-1, 1]^3, at most: as many as on its diagonal."""
    return int(2 * 3**0.5 / step) + 2
