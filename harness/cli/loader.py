"""Hydra's configuration loader with one-line errors. Settings of Hydra itself that would run other
code or create folders are rejected."""

from __future__ import annotations

import functools
import re
import uuid
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.object_type import ObjectType
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from harness.cli import explain
from harness.common.errors import UsageError
from harness.common.values import fits, show
from harness.config import own_class, secrets
from harness.config.keys import dotted_keys, walk

# Registered here because processes started by a launcher import this module, but no command.
# `${unique:}`: six hex digits, the same everywhere in a run, different between processes.
OmegaConf.register_new_resolver(
    "unique", lambda: uuid.uuid4().hex[:6], use_cache=True, replace=True
)
# `${by_model:{gpt: 1e-3, …, default: 1e-2}}`: the value for the chosen model.
OmegaConf.register_new_resolver(
    "by_model",
    lambda values, _root_: values[
        _root_.names.model if _root_.names.model in values else "default"
    ],
    replace=True,
)

_PLUGINS = "hydra._internal.core_plugins"
_NO_LOGGING = {"version": 1, "root": None, "disable_existing_loggers": False}
# Settings by which Hydra builds objects or creates folders before our checks run: their required
# values, and what to use instead.
FIXED: dict[str, tuple[object, str]] = {
    "callbacks": ({"sweep": {"_target_": "harness.cli.sweep_callback.SweepReport"}}, ""),
    "sweeper._target_": (f"{_PLUGINS}.basic_sweeper.BasicSweeper", ""),
    "hydra_logging": (_NO_LOGGING, ""),
    "job_logging": (_NO_LOGGING, ""),
    "job.chdir": (False, ""),
    "job.env_set": ({}, "; set variables before the command"),
    "output_subdir": (None, ""),
    "run.dir": (".", "; name the run's folder by run_dir=…"),
    "sweep.subdir": (".", "; name the sweep's folder by hydra.sweep.dir=…"),
}


class Loader(ConfigLoaderImpl):
    """Composes as Hydra does. Raises UsageError if that fails."""

    def load_configuration(self, *arguments: Any, **named: Any) -> DictConfig:
        # Of the repository: Hydra's own get_group_options copies it, for each group anew.
        named_files = self.repository.get_group_options
        choices = functools.cache(lambda group: named_files(group, ObjectType.CONFIG))
        typed = [_without_local(each) for each in named["overrides"]]
        overrides = named["overrides"] = own_class.with_its_settings(typed)
        for override in overrides:
            secrets.reject_override(override)
            if message := explain.wrong_choice(override, choices):
                raise UsageError(message)
        try:
            config = super().load_configuration(*arguments, **named)
        # Hydra may raise a plain ValueError or AttributeError for a user's mistake.
        except Exception as error:
            groups = [each for each in overrides if choices(each.partition("=")[0])]
            known = functools.partial(self._known, *arguments, **named | {"overrides": groups})
            raise UsageError(explain.composition_error(error, overrides, known)) from error
        _require_fixed(config)
        if named.get("run_mode") != RunMode.MULTIRUN:  # the jobs of a sweep come by themselves
            own_class.fit(config, overrides)
        return config

    def _known(self, *arguments: Any, **named: Any) -> list[str]:
        """The existing keys; empty if the configuration can't be composed."""
        try:
            config = super().load_configuration(*arguments, **named)
        except Exception:  # the caller reports another error
            return []
        return ["hydra.sweep.dir", *dotted_keys(config)]


def _without_local(override: str) -> str:
    """The local logger is always on: `logger=[local,wandb]` is `logger=[wandb]`."""
    chosen = re.fullmatch(r"logger=(?:\[([\w, ]*)\]|local)", override)
    if chosen is None:
        return override
    names = [name.strip() for name in (chosen[1] or "").split(",")]
    return f"logger=[{','.join(name for name in names if name not in ('local', ''))}]"


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
