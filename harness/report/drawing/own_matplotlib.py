"""matplotlib, with its own defaults: no figure depends on a user's settings.

It reads the variables MPLBACKEND and MATPLOTLIBRC when it is imported, and a file matplotlibrc of
the working folder or the user. A backend that is not installed would be a traceback there, a style
with `text.usetex` one while it draws. Nobody else imports it.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from harness.common.errors import UsageError

# What it finds wrong with such a file, or with its folders, changes nothing here.
logging.getLogger("matplotlib").addHandler(logging.NullHandler())
with patch.dict(os.environ):
    os.environ.pop("MPLBACKEND", None)
    os.environ["MATPLOTLIBRC"] = os.devnull
    try:
        import matplotlib
        from matplotlib.axes import Axes
        from matplotlib.figure import Figure
        from matplotlib.ticker import FixedFormatter, FixedLocator, FuncFormatter, NullLocator
    except (OSError, UnicodeDecodeError) as error:  # of the working folder, which comes first
        raise UsageError(f"matplotlib can't read ./matplotlibrc: {error}") from error

__all__ = [
    "Axes",
    "Figure",
    "FixedFormatter",
    "FixedLocator",
    "FuncFormatter",
    "NullLocator",
    "own_style",
]

# A backend is for windows, and is left as it is.
_STYLE: dict[Any, Any] = {
    **{key: value for key, value in matplotlib.rcParamsDefault.items() if key != "backend"},
    **{"svg.fonttype": "none", "svg.hashsalt": "zoo", "font.family": ["DejaVu Sans"]},
}


@contextmanager
def own_style() -> Iterator[None]:
    """Around everything that draws, from a figure's making to its file; also a decorator."""
    with matplotlib.rc_context(_STYLE):
        yield
