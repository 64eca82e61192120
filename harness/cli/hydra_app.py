"""Commands whose configuration Hydra composes."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from inspect import getmodule
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

import hydra
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra._internal import hydra as internals
from hydra._internal.utils import get_args_parser
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.object_type import ObjectType
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from harness.cli.help import page
from harness.cli.loader import Loader
from harness.cli.tool import raise_option_error, run_tool
from harness.common.errors import UsageError
from harness.common.paths import CONF
from harness.config.keys import known_keys

# Hydra has no option to replace its loader.
vars(internals)["ConfigLoaderImpl"] = Loader


def run_hydra(
    task: Callable[[DictConfig], int], *, trains: bool = False, sweeps: bool = True
) -> NoReturn:
    """Run `task` on the configuration that the command line describes, in a sweep on each. trains:
    whether it hands jobs to several devices. sweeps: whether it takes -m; if not, it refuses it."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra raises errors instead of printing many lines

    def job(cfg: DictConfig) -> int:
        # A single run ends the process; in a sweep Hydra collects the jobs' exit codes.
        if HydraConfig.get().mode == RunMode.MULTIRUN:
            return task(cfg)
        return run_tool(lambda: _alone(task, cfg))

    def main() -> int:
        _check_options()
        if not trains and any(word.startswith("sweep.devices=") for word in sys.argv):
            raise UsageError("sweep.devices is for harness.train: this runs one job after another")
        Loader.sweeps = sweeps
        vars(internals)["Hydra"].app_help = _help_of(getmodule(task))
        try:
            hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")(job)()
        except (HydraException, OmegaConfBaseException) as error:
            raise UsageError(str(error)) from error
        return 0

    run_tool(main)


def _alone(task: Callable[[DictConfig], int], cfg: DictConfig) -> int:
    """Run it on the only configuration. Raises UsageError for what only a sweep has."""
    if its := [override for override in typed_overrides() if override.startswith("sweep.")]:
        raise UsageError(f"{its[0]} is for a sweep: add -m")
    return task(cfg)


def _help_of(command: ModuleType | None) -> Callable[..., None]:
    """In place of Hydra's `app_help`."""

    def show_help(app: Any, config_name: str, args_parser: Any, args: Any) -> None:
        config = app.compose_config(config_name, args.overrides, RunMode.RUN)
        HydraConfig.instance().set_config(config)
        places = [each for each in args.overrides if each.startswith("hydra.searchpath=")]

        def choices(group: str) -> list[str]:
            options = app.config_loader.get_group_options(
                group, ObjectType.CONFIG, config_name, places
            )
            return list(options)

        print(page((command and command.__doc__) or "", config, choices, args.resolve))

    return show_help


def _check_options() -> None:
    """Raises UsageError for a wrong option, for which Hydra would print its whole usage."""
    parser = get_args_parser()
    explained = functools.partial(raise_option_error, parser, settings=known_keys)
    parser.error = explained  # type: ignore[method-assign]
    options = parser.parse_args()
    if options.hydra_help and options.overrides:
        parser.error("--hydra-help takes no settings")
    modes = ("run", "multirun", "cfg", "info", "shell_completion")
    if sum(bool(getattr(options, mode)) for mode in modes) > 1:
        parser.error(f"only one of {', '.join(f'--{mode}' for mode in modes)} can be given")
    if options.resolve and not (options.cfg or options.help):
        parser.error("--resolve goes with --cfg or --help")
    if options.experimental_rerun is not None:
        # It unpickles a file, which can run any code.
        raise UsageError("--experimental-rerun is not supported; resume a run by resume=true")


def take_option(name: str) -> str | None:
    """The value of an option of ours, which Hydra must not see: `--out FILE`; None if it is not
    given."""
    values = [word.partition("=")[2] for word in sys.argv if word.startswith(f"{name}=")]
    sys.argv = [word for word in sys.argv if not word.startswith(f"{name}=")]
    if name in sys.argv[:-1]:
        place = sys.argv.index(name)
        values = [sys.argv[place + 1]]
        del sys.argv[place : place + 2]
    return values[-1] if values else None


def typed_overrides() -> list[str]:
    """The overrides of the command line; for use in a task."""
    typed: Any = OmegaConf.to_container(HydraConfig.get().overrides.task, resolve=False)
    return list(typed)


def compose(
    overrides: list[str],
    config_dir: Path = CONF,
    known: dict[tuple[str, ...], DictConfig] | None = None,
) -> DictConfig:
    """The configuration of these command-line overrides, without running anything.

    known: what many calls of a process share, as those of tests, by choice of files (see
    Loader). Raises UsageError if it can't be composed.
    """
    with initialize_config_dir(str(config_dir), version_base="1.3"):
        if known is not None:
            loader = GlobalHydra.instance().config_loader()
            assert isinstance(loader, Loader)
            loader.by_files = known
        cfg = hydra_compose("config", overrides, return_hydra_config=True)
    HydraConfig.instance().set_config(cfg)
    return cfg
