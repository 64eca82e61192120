"""A clock that stands still while the process does.

A process that is stopped (SIGSTOP, Ctrl-Z, a scheduler's suspend) does nothing, and no handler runs
before it goes on. So a thread looks at the time every quarter of a second; when SIGCONT comes, the
process stood still since that thread's last look.
"""

from __future__ import annotations

import os
import select
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter
from types import FrameType

LOOK = 0.25  # seconds: a pause is known to as much


class Clock:
    """Seconds of `perf_counter`, without those in which the process was stopped."""

    def __init__(self) -> None:
        self._paused, self._asked = 0.0, 0.0
        self._counted = threading.Semaphore(0)

    def __call__(self) -> float:
        self._asked = perf_counter()
        return self._asked - self._paused

    @contextmanager
    def running(self) -> Iterator[None]:
        """Pauses are noticed while the block runs, in the main thread."""
        read, write = os.pipe()
        os.set_blocking(write, False)
        thread = threading.Thread(target=self._watch, args=(read,), name="clock", daemon=True)
        before = signal.signal(signal.SIGCONT, self._continued)
        descriptor = signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        thread.start()
        self._counted.acquire()  # its first look
        try:
            yield
        finally:
            signal.set_wakeup_fd(descriptor)
            signal.signal(signal.SIGCONT, before)
            os.close(write)  # ends the thread
            thread.join()
            os.close(read)

    def _watch(self, descriptor: int) -> None:
        """Python writes the number of each signal to the descriptor, the moment it comes."""
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        looked = perf_counter()
        self._counted.release()
        while True:
            came = poll.poll(1000 * LOOK)
            alive, looked = max(looked, self._asked), perf_counter()
            if not came and looked - alive > 1.2 * LOOK:  # the signal may still be on its way
                came = poll.poll(1000 * LOOK)
            if came:
                if not (numbers := os.read(descriptor, 64)):
                    return
                if signal.SIGCONT in numbers:
                    self._paused += looked - alive
                    self._counted.release()

    def _continued(self, signum: int, frame: FrameType | None) -> None:
        # Before the main thread asks for the time, the pause is counted.
        self._counted.acquire(timeout=1)
