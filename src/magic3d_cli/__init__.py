"""magic3d: a sentence in, a textured 3D mesh out (Magic3D, Lin et al., CVPR 2023)."""

__version__ = "0.1.0"
