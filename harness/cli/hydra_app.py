"""How a command composes its configuration by Hydra."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra._internal import hydra as internals
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from harness.cli.loader import Loader
from harness.cli.tool import refuse, run_tool
from harness.common.errors import UsageError
from harness.common.paths import CONF


def run_hydra(task: Callable[[DictConfig], int]) -> NoReturn:
    """Compose the configuration from the command line and run `task` on it, or on each of many."""
    # Hydra then hands its errors to us instead of printing them over many lines.
    os.environ["HYDRA_FULL_ERROR"] = "1"

    def main() -> int:
        _require_known_options()
        prepare_hydra()
        try:
            hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")(
                _exiting(task)
            )()
        except (HydraException, OmegaConfBaseException) as error:
            raise UsageError(str(error)) from error
        return 0

    run_tool(main)


def _require_known_options() -> None:
    """Hydra would answer a wrong option with its whole usage."""
    parser = get_args_parser()
    parser.error = functools.partial(refuse, parser)  # type: ignore[method-assign]
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
        if HydraConfig.get().mode == RunMode.MULTIRUN:
            return task(cfg)
        return run_tool(lambda: task(cfg))

    return job


def typed_overrides() -> list[str]:
    """The overrides of the command line, inside a task."""
    typed: Any = OmegaConf.to_container(HydraConfig.get().overrides.task, resolve=False)
    return list(typed)


def compose(overrides: list[str], config_dir: Path = CONF) -> DictConfig:
    """The configuration that these command-line overrides give, without running anything.

    Raises UsageError if they give none.
    """
    prepare_hydra()
    with initialize_config_dir(str(config_dir), version_base="1.3"):
        cfg = hydra_compose("config", overrides, return_hydra_config=True)
    HydraConfig.instance().set_config(cfg)
    return cfg


def prepare_hydra() -> None:
    """Teach Hydra to compose through our loader, and what conf/ uses in `${…}` beside OmegaConf's
    own. Hydra offers no place to put a loader, hence the assignment."""
    vars(internals)["ConfigLoaderImpl"] = Loader
