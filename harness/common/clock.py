"""A clock that stands still while the process does.

A process that is stopped (SIGSTOP, Ctrl-Z, a scheduler's suspend) does nothing, and no handler runs
before it goes on. So a thread looks at the time every quarter of a second; when SIGCONT comes, the
process stood still since that thread's last look.

SIGCONT may be handled in any thread (torch starts several), so the main thread can go on before the
signal is known. After a gap in the looks the clock therefore waits for the thread's next one.
"""

from __future__ import annotations

import math
import os
import select
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter
from types import FrameType

LOOK = 0.25  # seconds: a pause is known to as much
GAP = 1.2 * LOOK  # without a look for so long: the process was stopped, or starved


class Clock:
    """Seconds of `perf_counter`, without those in which the process was stopped."""

    def __init__(self) -> None:
        self._paused, self._asked, self._looked = 0.0, 0.0, math.inf
        self._counted, self._look = threading.Semaphore(0), threading.Event()

    def __call__(self) -> float:
        now = perf_counter()
        if now - max(self._looked, self._asked) > GAP:  # stopped, or merely busy
            while self._looked < now:
                self._look.clear()
                if not self._look.wait(4 * LOOK):
                    break
            now = perf_counter()
        self._asked = now
        return now - self._paused

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
            self._looked = math.inf

    def _watch(self, descriptor: int) -> None:
        """Python writes the number of each signal to the descriptor, the moment it comes."""
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        self._looked = perf_counter()
        self._counted.release()
        while True:
            came = poll.poll(1000 * LOOK)
            alive, now = max(self._looked, self._asked), perf_counter()
            if not came and now - alive > GAP:  # the signal may still be on its way
                came = poll.poll(1000 * LOOK)
            if came:
                if not (numbers := os.read(descriptor, 64)):
                    return
                if signal.SIGCONT in numbers:
                    self._paused += now - alive
                    self._counted.release()
            self._looked = now
            self._look.set()

    def _continued(self, signum: int, frame: FrameType | None) -> None:
        # Before the main thread asks for the time, the pause is counted.
        self._counted.acquire(timeout=1)
