"""How a test waits: for the event, however slow or busy the machine is."""

from __future__ import annotations

import time
from collections.abc import Callable

GUARD = 600.0  # seconds; only what hangs takes as long


def wait_until(holds: Callable[[], object], alive: Callable[[], bool] = lambda: True) -> None:
    """Returns once `holds`. Fails if what would make it hold is no longer `alive`."""
    deadline = time.monotonic() + GUARD
    while not holds():
        # Whoever is gone may have done it before.
        assert alive() or holds(), "it ended before what was waited for"
        assert time.monotonic() < deadline, "it hangs"
        time.sleep(0.005)
