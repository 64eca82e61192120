"""How every command starts and ends: options, one-line errors, exit codes.

0 finished, 1 failed, 2 usage error, 130 interrupted, 143 stopped by SIGTERM after saving.
"""

from __future__ import annotations

import argparse
import functools
import io
import os
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

from harness.cli import explain
from harness.common.errors import RunFailure, UsageError, is_out_of_memory
from harness.common.interrupt import INTERRUPTED, TERMINATED
from harness.common.text import visible_line
from harness.config.settings import require_device


def run_tool(main: Callable[[], int]) -> NoReturn:
    """Run `main` and exit with its code. UsageError and RunFailure end in one line."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # "?" for what the terminal lacks
            stream.reconfigure(errors="replace")
    # SystemExit, so that `finally` blocks and context managers clean up.
    previous = signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))
    try:
        code = main()
        sys.stdout.flush()  # here, where BrokenPipeError is caught
    except UsageError as error:
        code = fail(error, 2)
    except RunFailure as error:
        code = fail(error, 1)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        code = fail(f"out of memory ({str(error).partition(chr(10))[0]})", 1)
    except KeyboardInterrupt:
        code = fail("interrupted", INTERRUPTED)
    except BrokenPipeError:
        # The reader is gone (`… | head`): Python must not flush stdout at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    finally:
        signal.signal(signal.SIGTERM, previous)
    sys.exit(code)


def command(main: Callable[[], int]) -> Callable[[], NoReturn]:
    """Decorate the main function of a command: it runs under `run_tool`."""
    return functools.wraps(main)(lambda: run_tool(main))


def fail(error: object, code: int) -> int:
    """Print the error as one line on stderr; returns the exit code."""
    print(f"error: {visible_line(str(error))}", file=sys.stderr)
    return code


class Parser(argparse.ArgumentParser):
    """Command-line options; an error raises UsageError with the nearest valid name."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options, allow_abbrev=False)

    def add_run(self) -> None:
        """Add the options of all commands that read a finished run."""
        self.add_argument("run", type=Path, help="the run's folder")
        self.add_argument("--checkpoint", choices=("best", "latest"), default="best")
        self.add_argument("--device", default="auto", help="auto, cpu, cuda or mps (auto)")
        self.add_argument(
            "--trust", action="append", default=[], help="a package with your own models"
        )

    def parse(self, at_least: Mapping[str, int]) -> argparse.Namespace:
        """Parse and check the options. at_least: the smallest value of each integer option."""
        options = self.parse_args()
        require_device("--device", options.device)
        for name, least in at_least.items():
            value = getattr(options, name)
            if value is not None and not least <= value < 2**63:
                rule = f"at least {least}" if value < least else "below 2^63"
                raise UsageError(f"--{name.replace('_', '-')} {value} must be {rule}")
        return options

    def error(self, message: str) -> NoReturn:
        raise_option_error(self, message)


def raise_option_error(parser: argparse.ArgumentParser, message: str) -> NoReturn:
    """Raises argparse's error message as a UsageError."""
    raise UsageError(explain.option_error(message, parser))
