"""The hot operations: each file holds a plain PyTorch reference beside its fast paths and chooses by device."""

from __future__ import annotations

import threading

NUMBA_LOCK = threading.RLock()
"""Held around every parallel numba call: numba's portable threading layer aborts the process on concurrent ones."""
