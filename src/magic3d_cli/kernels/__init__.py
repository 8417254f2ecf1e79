"""The hot operations: each file holds a PyTorch reference beside its fast paths, and chooses by device."""

from __future__ import annotations

import os
import threading

# A thread that waits at a barrier must sleep, not spin: where other programs use the cores too, spinning made
# a step 10 to 200 times slower. OpenMP reads this when it is loaded, so it should be set before torch is.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

NUMBA_LOCK = threading.RLock()
"""Held around every parallel numba call: numba's portable threading layer aborts on concurrent ones."""


def lattice_points(step: float) -> int:
    """How many points `step` apart lie on a ray through [-1, 1]^3, at most: as many as on its diagonal."""
    return int(2 * 3**0.5 / step) + 2
