"""magic3d: a sentence in, a textured 3D mesh out (Magic3D, Lin et al., CVPR 2023)."""

import os

__version__ = "0.1.0"

# A thread that waits at a barrier must sleep, not spin: where other programs use the cores too, spinning made
# a step 10 to 200 times slower. OpenMP reads this when it is loaded, so it has to be set before torch is.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
