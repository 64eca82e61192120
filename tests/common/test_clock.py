"""The time in which a process was stopped does not count."""

from __future__ import annotations

import itertools
import os
import signal
from time import perf_counter, sleep

import pytest

from harness.common.clock import LOOK, Clock

PAUSE = 4 * LOOK


@pytest.mark.parametrize("blocked", [set(), {signal.SIGCONT}], ids=["main thread", "another"])
def test_a_pause_does_not_count_and_the_clock_never_goes_back(blocked: set[int]) -> None:
    """In whichever thread the signal is handled: the main thread may go on before it is."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        clock = Clock()
        with clock.running():
            signal.pthread_sigmask(signal.SIG_BLOCK, blocked)
            readings, began = [clock()], perf_counter()
            for _ in range(2):
                os.kill(os.getpid(), signal.SIGSTOP)
                readings.append(clock())
            took = perf_counter() - began
        backwards = any(b < a for a, b in itertools.pairwise(readings))
        os.write(write, f"{took} {readings[-1] - readings[0]} {backwards:d}".encode())
        os._exit(0)
    paused = 0.0
    for _ in range(2):
        _, status = os.waitpid(child, os.WUNTRACED)
        assert os.WIFSTOPPED(status)
        began = perf_counter()
        sleep(PAUSE)  # the length of the pause, not a wait for something
        paused += perf_counter() - began
        os.kill(child, signal.SIGCONT)
    took, counted, backwards = map(float, os.read(read, 999).split())
    os.waitpid(child, 0)
    assert took >= paused >= 2 * PAUSE
    assert 0 <= took - paused <= counted + 2 * LOOK  # what was not paused
    assert counted <= took - paused + 1e-3
    assert not backwards


def test_a_clock_that_is_not_stopped_is_the_usual_one() -> None:
    clock = Clock()
    handler = signal.getsignal(signal.SIGCONT)
    with clock.running():
        before = perf_counter()
        now = clock()
        assert before <= now <= perf_counter()
    assert signal.getsignal(signal.SIGCONT) is handler
