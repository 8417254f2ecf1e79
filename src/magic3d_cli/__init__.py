"""magic3d: a sentence in, a textured 3D mesh out (Magic3D, Lin et al., CVPR 2023).

from magic3d_cli import generate
asset = generate("a red car", preset="draft")
asset.save("car.glb")
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from magic3d_cli.version import __version__

if TYPE_CHECKING:
    from magic3d_cli.api import GeneratedAsset, generate

__all__ = ["GeneratedAsset", "__version__", "generate"]

# A thread that waits at a barrier must sleep, not spin: where other programs use the cores too, spinning made
# a step 10 to 200 times slower. OpenMP reads this when it is loaded, so it has to be set before torch is.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def __getattr__(name: str) -> Any:
    """`generate` is imported when it is asked for: the command line answers before torch is there."""
    if name in ("GeneratedAsset", "generate"):
        from magic3d_cli import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
