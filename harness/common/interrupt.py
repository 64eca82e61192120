"""Signals that ask a run to stop: it saves first.

SIGTERM, Ctrl-C, SIGHUP (the terminal was closed) and SIGUSR1 (a scheduler's warning, as by SLURM's
`--signal=USR1@60`) are stored, and looked at wherever the work can stop: between two micro-batches,
evaluation batches, sampled tokens, batches of statistics, and while other processes are waited for.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

STOPPING = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)  # Ctrl-C raises KeyboardInterrupt, too


def exit_code(signum: int) -> int:
    """As a shell says it: 143 for SIGTERM, 130 for Ctrl-C, 129 for SIGHUP, 138 for SIGUSR1."""
    return 128 + signum


INTERRUPTED, TERMINATED = exit_code(signal.SIGINT), exit_code(signal.SIGTERM)
STOPPED = tuple(map(exit_code, (*STOPPING, signal.SIGINT)))


class Stopped(Exception):
    """The signal `signum` asked the run to stop."""

    def __init__(self, signum: int) -> None:
        super().__init__(f"stopped by {signal.Signals(signum).name}")
        self.signum = signum


class Interrupt:
    """Stores a signal until the work can stop.

    agree: asked for the signal that counts: with several processes, one that any of them received
    (harness.training.distributed).
    wake: called by the signal handler; set by whoever waits for another event.
    """

    def __init__(self, agree: Callable[[Interrupt], int | None] | None = None) -> None:
        self.received: int | None = None
        self.wake: Callable[[], None] = lambda: None
        self._agree = agree

    def check(self) -> None:
        """Raises Stopped after a signal. With several processes, all call it at the same place."""
        signum = self.received if self._agree is None else self._agree(self)
        if signum is not None:
            raise Stopped(signum)

    @contextmanager
    def raising(self) -> Iterator[None]:
        """Inside, a signal raises Stopped at once, as soon as a library's call returns: for work of
        one process that can be thrown away."""

        def stop(signum: int, frame: FrameType | None) -> None:
            before, self.received = self.received, signum
            if before is None:  # the second finds the first one's work being undone
                raise Stopped(signum)

        with handling((*STOPPING, signal.SIGINT), stop):
            if self.received is not None:  # just before
                raise Stopped(self.received)
            yield

    def decide_alone(self) -> None:
        """From here on the other processes do something else."""
        self._agree = None

    @contextmanager
    def handling_signals(self) -> Iterator[None]:
        """Store the signals while the block runs. A second Ctrl-C interrupts at once."""
        with handling((*STOPPING, signal.SIGINT), self._handle):
            yield

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        if self.received == signal.SIGINT == signum:
            raise KeyboardInterrupt
        self.received = signum
        self.wake()


@contextmanager
def ending_at_once() -> Iterator[None]:
    """While the block runs, a signal ends the process: for what has nothing to save, and may be in
    a library for minutes, which Python's handlers wait for. The shell says the same exit code."""
    if threading.current_thread() is not threading.main_thread():
        yield  # which alone has handlers
        return
    with handling((*STOPPING, signal.SIGINT), signal.SIG_DFL):
        yield


@contextmanager
def signals_for_this_process() -> Iterator[None]:
    """A process that is started inside never gets those that a terminal sends to all: it is this
    one that tells it, once, to stop (SIGTERM)."""
    mask = {signal.SIGINT, *STOPPING} - {signal.SIGTERM}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, mask)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def handling(
    numbers: tuple[signal.Signals, ...],
    handler: Callable[[int, FrameType | None], Any] | signal.Handlers,
) -> Iterator[None]:
    """While the block runs, the handler is called for these signals. Those that whoever started the
    process has it ignore (SIGHUP under nohup) stay ignored."""
    previous = {
        number: signal.signal(number, handler)
        for number in numbers
        if signal.getsignal(number) != signal.SIG_IGN
    }
    try:
        yield
    finally:
        for number, before in previous.items():
            signal.signal(number, before)
