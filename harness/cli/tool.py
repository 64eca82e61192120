"""How every command starts and ends: its options, one clear line for a mistake, exit codes.

0 finished, 1 failed, 2 wrong usage, 130 interrupted, 143 stopped by SIGTERM after saving.
"""

from __future__ import annotations

import argparse
import io
import os
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

from harness.cli import explain
from harness.common.errors import RunFailure, UsageError
from harness.common.interrupt import INTERRUPTED, TERMINATED
from harness.config.settings import require_device


def run_tool(main: Callable[[], int]) -> NoReturn:
    """Run a command's main function and leave with its exit code; mistakes end in one line."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal that lacks a character shows "?"
            stream.reconfigure(errors="replace")
    # Where nothing needs saving, so that what is half done is cleaned up nevertheless.
    previous = signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))
    try:
        code = main()
        sys.stdout.flush()  # here, where a reader that left is no mistake
    except UsageError as error:
        code = fail(error, 2)
    except RunFailure as error:
        code = fail(error, 1)
    except KeyboardInterrupt:
        code = fail("interrupted", INTERRUPTED)
    except BrokenPipeError:
        # The reader left (`… | head`): nothing more to say, and Python must not try to.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    finally:
        signal.signal(signal.SIGTERM, previous)
    sys.exit(code)


def fail(error: object, code: int) -> int:
    """Say what went wrong in one line, whatever it quotes; returns the exit code."""
    print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
    return code


class Parser(argparse.ArgumentParser):
    """A tool's options. A mistake is a UsageError with the nearest valid choice."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options, allow_abbrev=False)

    def add_run(self) -> None:
        """The options that all tools share which read a finished run."""
        self.add_argument("run", type=Path, help="the run's folder")
        self.add_argument("--checkpoint", choices=("best", "latest"), default="best")
        self.add_argument("--device", default="auto", help="auto, cpu, cuda or mps (auto)")
        self.add_argument(
            "--trust", action="append", default=[], help="a package of your own models"
        )

    def parse(self, at_least: Mapping[str, int]) -> argparse.Namespace:
        """The options, once checked: `at_least` has the smallest value of each that is a count."""
        options = self.parse_args()
        require_device("--device", options.device)
        for name, least in at_least.items():
            value = getattr(options, name)
            if value is not None and not least <= value < 2**63:
                rule = f"at least {least}" if value < least else "below 2^63"
                raise UsageError(f"--{name.replace('_', '-')} {value} must be {rule}")
        return options

    def error(self, message: str) -> NoReturn:
        refuse(self, message)


def refuse(parser: argparse.ArgumentParser, message: str) -> NoReturn:
    """Raises argparse's complaint as a UsageError in one line."""
    raise UsageError(explain.arguments(message, parser))
