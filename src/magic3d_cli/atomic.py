"""Files that are either the old version or the new one, never half of each."""

from __future__ import annotations

import os
from pathlib import Path

SUFFIX = ".tmp"
"""Ends the name of a file that is still being written; such a file is worth nothing after a crash."""


def write_atomically(path: Path, data: bytes, *, durable: bool = True) -> None:
    """Replace `path` by `data`: temporary file beside it, flushed to the disk, renamed.

    With `durable` false the flush is left out: after a power cut the file may be empty, which a preview can
    afford and a checkpoint cannot. Raises OSError; the old file is then untouched.
    """
    temporary = path.with_name(path.name + SUFFIX)
    try:
        with temporary.open("wb") as file:
            file.write(data)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if durable and os.name == "posix":
        folder = os.open(path.parent, os.O_RDONLY)  # the rename itself must survive a power cut too
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
