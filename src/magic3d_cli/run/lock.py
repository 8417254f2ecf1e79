"""One process at a time in a run directory."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import IO

from magic3d_cli.errors import UsageError

_HELD = (errno.EWOULDBLOCK, errno.EACCES, errno.EDEADLK)  # the last two on Windows


class Lock:
    """An operating-system lock on a file that also names its holder.

    The system drops the lock when its process dies, however it dies, so there are no stale locks to guess
    about; the process id in the file is only for the message.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: IO[str] | None = None

    def acquire(self) -> None:
        """Take the lock, and name this process as its holder.

        Raises UsageError when another process holds it, OSError when it cannot be had at all.
        """
        file = self._taken()
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        self._file = file

    def check(self) -> None:
        """Raises what `acquire` would; changes nothing."""
        self._taken().close()

    def _taken(self) -> IO[str]:
        """The file, locked for as long as it is open."""
        file = self.path.open("a+", encoding="ascii")
        try:
            _lock(file)
        except OSError as error:
            if error.errno not in _HELD:
                file.close()
                raise  # a file system without locks, say
            file.seek(0)
            holder = file.read().strip()
            file.close()
            raise UsageError(
                f"{self.path.parent} is in use by another magic3d" + (f" (process {holder})." if holder else "."),
                "Wait for it to finish, stop it, or choose another output with -o.",
            ) from error
        return file

    def release(self) -> None:
        """Let go; does nothing when not held. The file stays: removing it would race with the next holder."""
        if self._file is not None:
            self._file.close()
            self._file = None


if os.name == "nt":
    import msvcrt

    def _lock(file: IO[str]) -> None:
        # Windows locks bytes and hides them from readers: lock one far behind the process id.
        file.seek(1 << 20)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
        file.seek(0)
else:
    import fcntl

    def _lock(file: IO[str]) -> None:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
