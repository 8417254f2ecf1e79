"""Ctrl-C, SIGTERM and a closed terminal (SIGHUP): stop between two steps, or at once where there is nothing to save."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else []))


class Interrupted(KeyboardInterrupt):
    """The person or the system asked to stop. Not an Exception, so that no library swallows it."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number

    @property
    def exit_code(self) -> int:
        """128 + signal number, as shells expect: 130 for Ctrl-C, 143 for SIGTERM, 129 for SIGHUP."""
        return 128 + self.number


class Interrupts:
    """Turns signals into `Interrupted`. While `held`, a first signal waits for `check`; a second does not."""

    def __init__(self, cancelled: Callable[[], bool] = lambda: False) -> None:
        """`cancelled` is asked between two steps: true stops the run as Ctrl-C would, also outside the main thread."""
        self._cancelled = cancelled
        self._holding = False
        self._received: int | None = None

    @property
    def pending(self) -> int | None:
        """The signal that waits for `check`."""
        if self._received is None and self._cancelled():
            self.stop()
        return self._received

    def stop(self, number: int = signal.SIGINT) -> None:
        """Have the next `check` raise, as that signal would."""
        self._received = number

    @contextmanager
    def installed(self) -> Iterator[Interrupts]:
        """Handle signals for the duration; only the main thread can, in others this does nothing.

        What is ignored stays so: `nohup` means that a closed terminal is not to stop the program. So does a handler
        that is not Python's, of a program that Python runs inside (Blender): it could not be put back.
        """
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        present = {number: signal.getsignal(number) for number in _SIGNALS}
        ours = (n for n in _SIGNALS if n == signal.SIGINT or present[n] is not signal.SIG_IGN)
        wanted = [number for number in ours if present[number] is not None]
        previous = {number: signal.signal(number, self._receive) for number in wanted}
        try:
            yield self
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Defer the first signal: the code inside calls `check` wherever its state is consistent."""
        self._holding = True
        try:
            yield
        finally:
            self._holding = False
        self.check()

    def check(self) -> None:
        """Raise `Interrupted` if a signal is waiting."""
        if (number := self.pending) is not None:
            raise Interrupted(number)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self._holding and self._received is None:
            self.stop(number)
        else:
            raise Interrupted(number)
