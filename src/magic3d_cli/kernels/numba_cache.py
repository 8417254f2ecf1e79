"""Where numba keeps compiled kernels: beside the package, in the user's cache, or else in a temporary folder.

numba itself tries the first two and raises RuntimeError as soon as a function with `cache=True` is defined when neither
can be written: a package that root installed and a user without a home folder (a container's USER, a service).
Every file with numba kernels takes `CACHE` from here, so that the choice is made before its kernels are defined.
"""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

import numba
from numba.core import event

from magic3d_cli.kernels import ON_COMPILE

_SHARED_MEMORY = "/dev/shm"  # writable in a container whose disk is read-only


def _choose() -> tuple[bool, Path | None]:
    """Whether numba can cache at all, and the temporary folder where it had to be sent."""
    if _numba_finds_a_folder():
        return True, None
    folder = _private_folder()
    if folder is None:
        return False, None
    os.environ["NUMBA_CACHE_DIR"] = str(folder)
    numba.config.reload_config()  # numba has read the environment already
    return _numba_finds_a_folder(), folder


def _numba_finds_a_folder() -> bool:
    try:
        numba.njit(cache=True)(_probe)  # looks for a folder at once, compiles nothing before a call
    except (RuntimeError, OSError):
        return False
    return True


def _probe() -> int:
    return 0


def _private_folder() -> Path | None:
    """A folder that is kept between runs and that nobody else can write: what lies in it is executed.

    In a shared place another user could have made one of that name first; such a one is not used.
    """
    user = os.getuid() if hasattr(os, "getuid") else 0
    for place in _places():
        folder = Path(place) / f"magic3d-kernels-{user}"
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
            found = folder.lstat()
            own = not hasattr(os, "getuid") or (found.st_uid == user and not found.st_mode & 0o022)
            if stat.S_ISDIR(found.st_mode) and own:
                tempfile.TemporaryFile(dir=folder).close()
                return folder
        except OSError:
            continue
    return None


def _places() -> list[str]:
    try:
        return [tempfile.gettempdir(), _SHARED_MEMORY]
    except FileNotFoundError:  # not one temporary folder can be written
        return [_SHARED_MEMORY]


class _Compiling(event.Listener):
    def on_start(self, event: event.Event) -> None:
        for callback in ON_COMPILE:
            callback()

    def on_end(self, event: event.Event) -> None:
        pass


event.register("numba:compile", _Compiling())
CACHE, TEMPORARY = _choose()
"""Whether kernels are cached, and the temporary folder if that is where."""
