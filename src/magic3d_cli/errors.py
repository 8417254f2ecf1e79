"""Expected failures. Each says what happened, why, and the next command to type, and carries an exit code."""

from __future__ import annotations

import errno
import sys

_FULL = ("can't allocate memory", "out of memory", "ALLOC_FAILED", "could not create a primitive")
"""What PyTorch's CPU allocator, the CUDA driver, cuBLAS and cuDNN, and oneDNN say; only CUDA's allocator has a class of
its own."""


class Magic3DError(Exception):
    """An expected failure, shown to the user without a traceback.

    Args:
        what: what happened and why, in one or two sentences.
        next_step: what the user can do or type now.
    """

    exit_code = 1

    def __init__(self, what: str, next_step: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.next_step = next_step


class UsageError(Magic3DError):
    """The request itself is wrong: empty prompt, unknown word, wrong suffix, foreign checkpoint."""

    exit_code = 2


class EnvironmentFault(Magic3DError):
    """This machine lacks what was asked for: no such prior, no GPU, a missing package."""

    exit_code = 3


class OutOfMemory(Magic3DError):
    """The device or host ran out of memory."""

    exit_code = 4


class Collapsed(Magic3DError):
    """The optimisation collapsed: an empty or solid volume, or no surface to extract."""

    exit_code = 5


def out_of_memory(error: BaseException) -> bool:
    """Whether an error, or what it was raised from, says that the device or the host ran out of memory."""
    if error.__cause__ is not None and out_of_memory(error.__cause__):
        return True
    torch = sys.modules.get("torch")
    if isinstance(error, OSError) and error.errno == errno.ENOMEM:
        return True
    if isinstance(error, MemoryError) or (torch and isinstance(error, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _FULL)


def first_line(error: BaseException) -> str:
    """What an error says, for a message."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
