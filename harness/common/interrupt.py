"""SIGTERM and Ctrl-C: noticed between steps and between batches of an evaluation."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

INTERRUPTED, TERMINATED = 130, 143  # exit codes


class Stopped(Exception):
    """The user or the system asked the run to stop. `signum` says how."""

    def __init__(self, signum: int) -> None:
        super().__init__(f"stopped by {signal.Signals(signum).name}")
        self.signum = signum


class Interrupt:
    """Remembers a signal until the work is at a place where it can stop.

    together: several processes work together, so that a signal counts only once all have agreed
    on it (harness.training.distributed).
    wake: called when a signal came, in its handler; whoever waits for something else sets it.
    """

    def __init__(self, together: bool = False) -> None:
        self.noted: int | None = None
        self.agreed: int | None = None
        self.wake: Callable[[], None] = lambda: None
        self._together = together

    def check(self) -> None:
        """Raises Stopped if a signal came. A second Ctrl-C interrupts at once."""
        signum = self.agreed if self._together else self.noted
        if signum is not None:
            raise Stopped(signum)

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Catch SIGTERM and SIGINT while the block runs."""
        previous = {number: signal.signal(number, self._note) for number in self._SIGNALS}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    _SIGNALS = (signal.SIGTERM, signal.SIGINT)

    def _note(self, signum: int, frame: FrameType | None) -> None:
        if self.noted == signal.SIGINT == signum:
            raise KeyboardInterrupt
        self.noted = signum
        self.wake()
