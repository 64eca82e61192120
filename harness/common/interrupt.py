"""SIGTERM and Ctrl-C, handled between training steps and between evaluation batches."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

INTERRUPTED, TERMINATED = 130, 143  # exit codes


class Stopped(Exception):
    """The signal `signum` asked the run to stop."""

    def __init__(self, signum: int) -> None:
        super().__init__(f"stopped by {signal.Signals(signum).name}")
        self.signum = signum


class Interrupt:
    """Stores a signal until the work can stop.

    distributed: several processes train together. A signal then counts only when all of them have
    agreed on it (harness.training.distributed).
    wake: called by the signal handler; set by whoever waits for another event.
    """

    _SIGNALS = (signal.SIGTERM, signal.SIGINT)

    def __init__(self, distributed: bool = False) -> None:
        self.received: int | None = None
        self.agreed: int | None = None
        self.wake: Callable[[], None] = lambda: None
        self._distributed = distributed

    def check(self) -> None:
        """Raises Stopped after a signal."""
        signum = self.agreed if self._distributed else self.received
        if signum is not None:
            raise Stopped(signum)

    @contextmanager
    def handling_signals(self) -> Iterator[None]:
        """Store SIGTERM and SIGINT while the block runs. A second Ctrl-C interrupts at once."""
        previous = {number: signal.signal(number, self._handle) for number in self._SIGNALS}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        if self.received == signal.SIGINT == signum:
            raise KeyboardInterrupt
        self.received = signum
        self.wake()
