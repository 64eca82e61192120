"""Whoever works for another process leaves when that one is gone: a worker of a sweep or of
`harness.verify`, a rank of torch's launcher, a life in the fault drill. A killed process can't tell
its children to stop, and they would go on for hours, in folders that the next start wants to use.

What a person started outlives its parent: a training in the background, or from the live page.
"""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable
from multiprocessing import parent_process
from threading import Thread
from time import sleep

LOG = logging.getLogger("harness")
POLL = 1.0  # seconds


def leave_with_parent() -> None:
    """From the parent's end on this process gets SIGTERM, again and again: a training saves and
    stops, and what does nothing ends. Does nothing in a process that works for no other one.

    It asks who its parent is, which works on every POSIX system. prctl(PR_SET_PDEATHSIG) is
    Linux's alone, and takes the end of the *thread* that started a worker for the parent's.
    """
    global _watched
    if _watched or (is_gone := _parents_end()) is None:
        return
    _watched = True
    Thread(target=_leave, args=(is_gone,), daemon=True).start()


_watched = False


def _parents_end() -> Callable[[], bool] | None:
    """Tells whether the parent is gone; None if nobody waits for this process's work."""
    if (parent := parent_process()) is not None:

        def is_gone() -> bool:
            if os.getppid() == parent.pid:
                return False
            try:
                return not parent.is_alive()  # a fork server is in between
            except (TypeError, ValueError):  # joblib's workers have no pipe to their parent
                return True

        return is_gone
    if "TORCHELASTIC_RUN_ID" in os.environ:  # torch's launcher
        launcher = os.getppid()
        return lambda: os.getppid() != launcher
    return None


def _leave(is_gone: Callable[[], bool]) -> None:
    while not is_gone():
        sleep(POLL)
    LOG.warning("the process that started this one is gone: it saves and leaves")
    while True:
        os.kill(os.getpid(), signal.SIGTERM)
        sleep(POLL)
