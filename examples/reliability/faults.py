"""Faults that happen to a process: its n-th file operation fails, its files may not grow, its folder disappears.

Python reports opening, renaming, making and removing files to an audit hook, which may raise instead: so each place at
which a run touches the disk can be made to fail, whatever code it is in.
"""

from __future__ import annotations

import errno
import os
import resource
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

EVENTS = ("open", "os.rename", "os.mkdir", "os.remove")
_active: list[Callable[[str], None]] = []


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if not _active or event not in EVENTS or not isinstance(arguments[0], str | bytes | os.PathLike):
        return
    if event == "open" and not arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
        return
    _active[0](os.fsdecode(arguments[0]))


def off() -> None:
    """No more faults in this process."""
    _active.clear()
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (hard, hard))


def _watch(folder: Path, at: Callable[[int, str], None]) -> None:
    """Call `at` with the number and the path of each writing operation inside a folder, before it happens."""
    count = 0

    def seen(path: str) -> None:
        nonlocal count
        if str(folder) in os.path.abspath(path):
            count += 1
            at(count, path)

    _active[:] = [seen]
    sys.addaudithook(_hook)


def count_operations(folder: Path, into: Path) -> None:
    """Write each operation's number and file into `into`, of a run without faults."""

    def at(number: int, path: str) -> None:
        descriptor = os.open(into, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.write(descriptor, f"{number} {os.path.basename(path)}\n".encode())
        os.close(descriptor)

    _watch(folder, at)


def disk_full(folder: Path, number: int, code: int = errno.ENOSPC, lasting: bool = True) -> None:
    """From the n-th writing operation on (only that one unless `lasting`) the system says `code`, for instance that the
    disk is full or, with EROFS, that it became read-only."""

    def at(count: int, path: str) -> None:
        if count == number or (lasting and count > number):
            raise OSError(code, os.strerror(code), path)

    _watch(folder, at)


def folder_deleted(folder: Path, number: int) -> None:
    """At the n-th writing operation the folder is deleted with all that is in it."""

    def at(count: int, path: str) -> None:
        if count == number:
            _active.clear()
            shutil.rmtree(folder)

    _watch(folder, at)


def small_files(limit: int) -> None:
    """The system writes files only up to this many bytes, then says that they are too large: a write is torn."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))


def little_memory(more: int) -> None:
    """The process may take this many bytes beside those that it has; then allocations fail. Linux only."""
    pages = int(open("/proc/self/statm", encoding="ascii").read().split()[0])  # noqa: SIM115
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + more, hard))
