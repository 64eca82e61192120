"""Hydra's configuration loader with one-line errors. Settings of Hydra itself that would run other
code or create folders are rejected."""

from __future__ import annotations

import copy
import functools
import re
import uuid
from collections.abc import Callable, Sequence
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl, get_overrides_dirname
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from harness.cli import explain, recipe
from harness.cli.overrides import prepared
from harness.common.errors import UsageError
from harness.common.paths import expand
from harness.common.values import fits, show
from harness.config import own_class
from harness.config.keys import dotted_keys, walk

# Resolvers are registered here because processes started by a launcher import this module, but no
# command. `${unique:}`: six hex digits, the same everywhere in a run, different between processes.
OmegaConf.register_new_resolver(
    "unique", lambda: uuid.uuid4().hex[:6], use_cache=True, replace=True
)


def _by_model(values: DictConfig, _root_: DictConfig) -> Any:
    """`${by_model:{gpt: 1e-3, …, default: 1e-2}}`: the value for the chosen model."""
    name = _root_.names.model
    if name in values:
        return values[name]
    if "default" not in values:
        raise UsageError(f"by_model has no value for model={name}, and no default")
    recipe.say(
        f"model={name}: no rate was searched for it, it has a default one; for a fair comparison, "
        f"with the same search for every model: python -m harness.baseline {name}"
    )
    return values["default"]


OmegaConf.register_new_resolver("by_model", _by_model, replace=True)

_PLUGINS = "hydra._internal.core_plugins"
_NO_LOGGING = {"version": 1, "root": None, "disable_existing_loggers": False}
# Settings by which Hydra builds objects or creates folders before our checks run: their required
# values, and what to use instead.
FIXED: dict[str, tuple[object, str]] = {
    "callbacks": ({"sweep": {"_target_": "harness.cli.sweep_callback.SweepReport"}}, ""),
    "sweeper._target_": (f"{_PLUGINS}.basic_sweeper.BasicSweeper", f"; {explain.NO_OTHER_SWEEPER}"),
    "hydra_logging": (_NO_LOGGING, ""),
    "job_logging": (_NO_LOGGING, ""),
    "job.chdir": (False, ""),
    "job.env_set": ({}, "; set variables before the command"),
    "output_subdir": (None, ""),
    "run.dir": (".", "; name the run's folder by run_dir=…"),
    "sweep.subdir": (".", "; name the sweep's folder by hydra.sweep.dir=…"),
}


class Loader(ConfigLoaderImpl):
    """Composes as Hydra does. Raises UsageError if that fails.

    The jobs of a sweep are checked, validated by Hydra, and run, and each time composed anew. Their
    files are read and merged once for each choice of files; a job's values are put into a copy.
    """

    sweeps = True
    """Whether the command that is run takes -m."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.by_files: dict[tuple[str, ...], DictConfig] | None = None  # None: a single one
        self._names: dict[tuple[str, ...], list[str]] = {}
        self._recipes: dict[tuple[str, ...], DictConfig] = {}

    def load_configuration(self, *arguments: Any, **named: Any) -> DictConfig:
        places = tuple(x for x in named["overrides"] if x.startswith("hydra.searchpath="))
        choices = functools.partial(self._choices, named["config_name"], places)
        # What a command composes by itself, by `compose`, is one configuration.
        sweeps = self.sweeps and named.get("from_shell", True)
        overrides = named["overrides"] = prepared(named["overrides"], choices, sweeps=sweeps)
        try:
            config = self._compose(choices, *arguments, **named)
        # Hydra may raise a plain ValueError or AttributeError for a user's mistake.
        except Exception as error:
            groups = [each for each in overrides if choices(each.partition("=")[0])]
            known = functools.partial(self._known, *arguments, **named | {"overrides": groups})
            line = explain.composition_error(error, overrides, known, sweeps=sweeps)
            raise UsageError(line) from error
        if named["config_name"] is not None:  # else it is Hydra's own alone, for --hydra-help
            _require_fixed(config)
            place = OmegaConf.to_container(config.hydra.sweep, resolve=False)["dir"]  # type: ignore
            if str(place).startswith("~"):
                config.hydra.sweep.dir = str(expand(place))
        if named.get("run_mode") != RunMode.MULTIRUN:  # the jobs of a sweep come by themselves
            own_class.fit(config, overrides)
            alone = functools.partial(self._recipe, named["config_name"], places)
            recipe.fit(config, overrides, alone)
        return config

    def _compose(
        self, choices: Callable[[str], list[str]], *arguments: Any, **named: Any
    ) -> DictConfig:
        if named.get("run_mode") == RunMode.MULTIRUN:
            # Without that check Hydra only asks whether it is a sweep.
            self.by_files = {} if named.get("validate_sweep_overrides", True) else None
            return super().load_configuration(*arguments, **named)
        if self.by_files is None:
            return super().load_configuration(*arguments, **named)
        files = tuple(each for each in named["overrides"] if _chooses_file(each, choices))
        if files not in self.by_files:
            chosen = named | {"overrides": list(files)}
            self.by_files[files] = super().load_configuration(*arguments, **chosen)
        config = copy.deepcopy(self.by_files[files])
        return _with_values(config, named["overrides"], files)

    def _choices(self, config_name: str, places: tuple[str, ...], group: str) -> list[str]:
        """The names of a group's files. places: overrides that name folders to look in."""
        if "\0" in group:  # no file has it in its name, and none may be asked for
            return []
        if (key := (*places, group)) not in self._names:
            # Hydra's own look-up reads the configuration anew for each group: 10 ms.
            self._names[key] = (
                self.get_group_options(group, ObjectType.CONFIG, config_name, list(places))
                if places
                else self.repository.get_group_options(group, ObjectType.CONFIG)
            )
        return self._names[key]

    def _recipe(self, config_name: str, places: tuple[str, ...], name: str) -> DictConfig:
        """A recipe with nothing else that was typed."""
        key = (*places, name)
        if key not in self._recipes:
            self._recipes[key] = super().load_configuration(
                config_name=config_name,
                overrides=[*places, f"experiment={name}"],
                run_mode=RunMode.RUN,
            )
        return self._recipes[key]

    def _known(self, *arguments: Any, **named: Any) -> list[str]:
        """The existing keys; empty if the configuration can't be composed."""
        try:
            config = super().load_configuration(*arguments, **named)
        except Exception:  # the caller reports another error
            return []
        return ["hydra.sweep.dir", *dotted_keys(config)]


def _chooses_file(override: str, choices: Callable[[str], list[str]]) -> bool:
    """Whether it is more than the value of a setting of ours."""
    key = override.lstrip("+~").partition("=")[0]
    return bool(re.search(r"[/@]|^hydra\b", key) or choices(key))


def _with_values(config: DictConfig, overrides: list[str], files: Sequence[str]) -> DictConfig:
    """The configuration of these files, with the other overrides put in as Hydra would have."""
    parsed = OverridesParser.create().parse_overrides(overrides)
    Loader.validate_sweep_overrides_legal(parsed, RunMode.RUN, from_shell=False)
    Loader._apply_overrides_to_config([x for x in parsed if x.input_line not in files], config)
    typed = [x for x in parsed if not x.is_hydra_override()]
    config.hydra.overrides.task = [x.input_line for x in typed]
    config.hydra.job.override_dirname = get_overrides_dirname(
        typed, **config.hydra.job.config.override_dirname
    )
    return config


def _require_fixed(config: DictConfig) -> None:
    plain: Any = OmegaConf.to_container(config.hydra, resolve=False)
    for key, (expected, instead) in FIXED.items():
        value = plain
        for name in key.split("."):
            value = value.get(name) if isinstance(value, dict) else None
        if value != expected:
            raise UsageError(f"hydra.{key} can't be changed{instead}")
    _require_launcher(plain.get("launcher"))
    if not fits(plain.get("verbose"), bool | str | list):
        raise UsageError(f"hydra.verbose={show(plain.get('verbose'))} should be true or false")
    # Hydra instantiates the sweeper's parameters.
    params = plain["sweeper"].get("params") or {}
    if not isinstance(params, dict):
        raise UsageError("hydra.sweeper.params should be a group of settings")
    for name in params:
        if str(name).startswith("_"):
            raise UsageError(f"hydra.sweeper.params.{name} is not a setting")


def _require_launcher(launcher: Any) -> None:
    """Raises UsageError unless the launcher is Hydra's own or an installed plugin of Hydra
    (`hydra/launcher=joblib`) and none of its settings names a class."""
    target = launcher.get("_target_") if isinstance(launcher, dict) else None
    own = f"{_PLUGINS}.basic_launcher.BasicLauncher"
    is_plugin = isinstance(target, str) and target.startswith("hydra_plugins.")
    if target != own and not is_plugin:
        raise UsageError("hydra.launcher can't be changed, except to an installed one of Hydra's")
    special = ("_target_", "_args_", "_partial_", "_convert_")
    keys = [path for path, _ in walk(launcher) if path not in ((), ("_target_",))]
    if any(key[-1] in special for key in keys):
        raise UsageError("hydra.launcher can't be changed: its settings name a class")
