"""The hot operations, and which library or kernel does them.

`dispatch` holds the operations that the rest of the program calls, and chooses a backend by device. Imports go down:
`dispatch` -> `verify` -> backends of a GPU (`compiled`, `tinycudann`, `nvdiffrast`) -> one file an operation
(`hash_encode`, `march`, `volume`, `rasterize`: its PyTorch reference and its numba kernel) and `cuda`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

NUMBA_LOCK = threading.RLock()
"""Held around every parallel numba call: numba's portable threading layer aborts on concurrent ones."""

ON_COMPILE: list[Callable[[], None]] = []
"""Called whenever numba begins to compile a kernel that was not in its cache."""
