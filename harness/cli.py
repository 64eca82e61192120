"""How every command starts and ends: Hydra's composition, one clear line for a mistake, exit codes.

0 finished, 1 failed, 2 wrong usage, 130 interrupted, 143 stopped by SIGTERM after saving.
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

from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from harness import config
from harness.errors import RunFailure, UsageError

INTERRUPTED = 130
TERMINATED = 143


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
        config.require_device("--device", options.device)
        for name, least in at_least.items():
            value = getattr(options, name)
            if value is not None and not least <= value < 2**63:
                rule = f"at least {least}" if value < least else "below 2^63"
                raise UsageError(f"--{name.replace('_', '-')} {value} must be {rule}")
        return options

    def error(self, message: str) -> NoReturn:
        _refuse(self, message)


def _refuse(parser: argparse.ArgumentParser, message: str) -> NoReturn:
    from harness import explain

    raise UsageError(explain.arguments(message, parser))


def run_hydra(task: Callable[[DictConfig], int]) -> NoReturn:
    """Compose the configuration from the command line and run `task` on it, or on each of many."""
    import hydra
    from hydra.errors import HydraException

    # Hydra then hands its errors to us instead of printing them over many lines.
    os.environ["HYDRA_FULL_ERROR"] = "1"

    def main() -> int:
        _require_known_options()
        prepare_hydra()
        try:
            hydra.main(version_base="1.3", config_path=str(config.CONF), config_name="config")(
                _exiting(task)
            )()
        except (HydraException, OmegaConfBaseException) as error:
            raise UsageError(str(error)) from error
        return 0

    run_tool(main)


def _require_known_options() -> None:
    """Hydra would answer a wrong option with its whole usage."""
    from hydra._internal.utils import get_args_parser

    parser = get_args_parser()
    parser.error = functools.partial(_refuse, parser)  # type: ignore[method-assign]
    options = parser.parse_args()
    modes = ("run", "multirun", "cfg", "info", "shell_completion")
    if sum(bool(getattr(options, mode)) for mode in modes) > 1:
        parser.error(f"only one of {', '.join(f'--{mode}' for mode in modes)} can be given")
    if options.resolve and not (options.cfg or options.help):
        parser.error("--resolve goes with --cfg or --help")
    if options.experimental_rerun is not None:
        # It unpickles a file, and a pickle runs whatever it likes.
        raise UsageError("--experimental-rerun is not supported; go on with a run by resume=true")


def _exiting(task: Callable[[DictConfig], int]) -> Callable[[DictConfig], int]:
    """A single run leaves with its exit code; in a sweep the job's code goes back to the sweep."""

    def job(cfg: DictConfig) -> int:
        from hydra.core.hydra_config import HydraConfig
        from hydra.types import RunMode

        if HydraConfig.get().mode == RunMode.MULTIRUN:
            return task(cfg)
        run_tool(lambda: task(cfg))

    return job


def compose(overrides: list[str], config_dir: Path = config.CONF) -> DictConfig:
    """The configuration that these command-line overrides give, without running anything.

    Raises UsageError if they give none.
    """
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.core.hydra_config import HydraConfig

    prepare_hydra()
    with initialize_config_dir(str(config_dir), version_base="1.3"):
        cfg = hydra_compose("config", overrides, return_hydra_config=True)
    HydraConfig.instance().set_config(cfg)
    return cfg


def prepare_hydra() -> None:
    """Teach Hydra to compose through our loader, and what conf/ uses in `${…}` beside OmegaConf's
    own. Hydra offers no place to put a loader, hence the assignment."""
    from hydra._internal import hydra as internals

    from harness.loader import Loader

    vars(internals)["ConfigLoaderImpl"] = Loader
