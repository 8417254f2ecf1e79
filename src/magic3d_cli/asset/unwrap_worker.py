"""The child process that runs xatlas: `python -m magic3d_cli.asset.unwrap_worker IN.npz OUT.npz SECONDS`.

xatlas holds the GIL, cannot be cancelled, and may hang or crash on noisy meshes; alone in a process it can be
killed. Imports only numpy and xatlas, so that it starts in a fraction of a second.
"""

from __future__ import annotations

import faulthandler
import signal
import sys

import numpy as np


def main(source: str, target: str, seconds: float) -> None:
    """Unwrap the mesh in `source` (positions, normals, faces, resolution, padding) and write `target`."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    # A watchdog thread in C that needs no GIL: the process also ends if its parent was killed outright.
    faulthandler.dump_traceback_later(seconds, exit=True)
    import xatlas

    data = np.load(source)
    atlas = xatlas.Atlas()
    atlas.add_mesh(data["positions"], data["faces"], data["normals"])
    pack = xatlas.PackOptions()
    pack.resolution = int(data["resolution"])
    pack.padding = int(data["padding"])
    pack.bilinear = True
    atlas.generate(xatlas.ChartOptions(), pack)
    if atlas.atlas_count != 1:
        raise SystemExit(f"xatlas made {atlas.atlas_count} atlases where one was asked for")
    vertex, faces, uvs = atlas[0]
    np.savez(target, vertex=vertex, faces=faces, uvs=uvs, size=[atlas.width, atlas.height])


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], float(sys.argv[3]))
