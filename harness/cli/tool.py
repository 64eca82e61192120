"""How every command starts and ends: options, one-line errors, exit codes.

0 finished, 1 failed, 2 usage error; after a signal 128 and its number: 130 Ctrl-C, 143 SIGTERM, 129
SIGHUP, 138 SIGUSR1. A training has then saved.
"""

from __future__ import annotations

import argparse
import functools
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NoReturn

from harness.cli import explain
from harness.cli.locale import require_utf8
from harness.cli.streams import finish_output, prepare_streams
from harness.common.contained import UnsafeFile
from harness.common.errors import RunFailure, UsageError, is_out_of_memory
from harness.common.files import DISK_ERRORS
from harness.common.interrupt import INTERRUPTED, STOPPING, exit_code, handling
from harness.common.text import visible_line
from harness.common.values import did_you_mean, show
from harness.config.settings import require_device


def run_tool(main: Callable[[], int]) -> NoReturn:
    """Run `main` and exit with its code. UsageError, RunFailure, a full disk and a
    file that is no regular one end in one line."""
    require_utf8()
    prepare_streams()
    # SystemExit, so that `finally` blocks and context managers clean up.
    with handling(STOPPING, lambda number, frame: sys.exit(exit_code(number))):
        code = 0
        try:
            code = main()
            sys.stdout.flush()  # here, where errors are caught
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
        except BrokenPipeError:  # the reader is gone (`… | head`)
            pass
        except OSError as error:
            if error.errno not in DISK_ERRORS and not isinstance(error, UnsafeFile):
                raise
            code = fail(f"{error.filename or 'a file'}: {error.strerror}", 1)
        finish_output()
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
        self.add_argument(
            "--checkpoint", type=_which, default="best", help="best, latest or the step of one"
        )
        self.add_argument(
            "--checkpoint-dir", metavar="DIR", help="the run's checkpoint_dir, if it has one"
        )
        self.add_argument("--device", default="auto", help="auto, cpu, cuda or mps (auto)")
        self.add_argument(
            "--trust", action="append", default=[], help="a package with your own models"
        )

    def add_data_path(self) -> None:
        """Add the option of the commands that read a run's text."""
        self.add_argument(
            "--data-path", type=Path, metavar="FILE", help="where the run's text lies now"
        )

    def add_workers(self) -> None:
        """Add the option of the commands that train a lot."""
        self.add_argument(
            "--workers",
            type=_workers,
            default=1,
            metavar="N",
            help="trainings at a time (1); or one on each GPU (auto), core of a CPU (cores), or "
            "device (cuda:0,cuda:1)",
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


def _which(text: str) -> str:
    """The value of --checkpoint. Raises UsageError."""
    names = ("best", "latest")
    if text in names or (text.isascii() and text.isdigit() and len(text) < 16):
        return text
    near = did_you_mean(text, names)
    raise UsageError(f"--checkpoint {show(text)} is not one of best, latest.{near} Or give a step")


def _workers(text: str) -> int | str | list[str]:
    """The value of --workers, as `sweep.devices` takes it. Raises UsageError."""
    if re.fullmatch(r"-?\d{1,9}", text, re.ASCII):
        if int(text) < 1:
            raise UsageError(f"--workers {text} must be at least 1")
        return int(text)
    names = text.split(",")
    if names in (["auto"], ["cores"]):
        return names[0]
    for name in names:
        require_device("--workers", name)
    return names


def raise_option_error(
    parser: argparse.ArgumentParser, message: str, settings: Callable[[], Iterable[str]] = tuple
) -> NoReturn:
    """Raises argparse's error message as a UsageError. settings: as in `explain.option_error`."""
    raise UsageError(explain.option_error(message, parser, settings))
