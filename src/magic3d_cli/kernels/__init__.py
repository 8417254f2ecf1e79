"""The hot operations: each file holds a plain PyTorch reference beside its fast paths and chooses by device."""

from __future__ import annotations

import os
import threading

# A thread that waits at a barrier must sleep, not spin: on a machine whose cores are also used by others, spinning
# made a step 10 to 200 times slower. Read when an OpenMP library is loaded, so it also has to be set before torch.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

NUMBA_LOCK = threading.RLock()
"""Held around every parallel numba call: numba's portable threading layer aborts on concurrent ones."""
