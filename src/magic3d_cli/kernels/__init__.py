"""The hot operations: each file holds a PyTorch reference beside its fast paths, and chooses by device."""

from __future__ import annotations

import threading

NUMBA_LOCK = threading.RLock()
"""Held around every parallel numba call: numba's portable threading layer aborts on concurrent ones."""


def lattice_points(step: float) -> int:
    """How many points `step` apart lie on a ray through [-1, 1]^3, at most: as many as on its diagonal."""
    return int(2 * 3**0.5 / step) + 2
