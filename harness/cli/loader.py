"""Hydra's way from a command line to a configuration: its errors in one line, and nothing in its
own settings that would run foreign code or make folders of its own."""

from __future__ import annotations

import functools
import re
import uuid
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.object_type import ObjectType
from omegaconf import DictConfig, OmegaConf

from harness.cli import explain
from harness.common.errors import UsageError
from harness.common.values import fits, show
from harness.config import secrets
from harness.config.keys import dotted_keys

# Here, as the processes that a launcher may start import this module and no command's.
# `${unique:}`: a few letters that no other process has, the same wherever one run reads it.
OmegaConf.register_new_resolver(
    "unique", lambda: uuid.uuid4().hex[:6], use_cache=True, replace=True
)
# `${by_model:{gpt: 1e-3, …}}`: the value for the model that was chosen.
OmegaConf.register_new_resolver(
    "by_model", lambda values, _root_: values[_root_.names.model], replace=True
)

_PLUGINS = "hydra._internal.core_plugins"
_NO_LOGGING = {"version": 1, "root": None, "disable_existing_loggers": False}
# What Hydra would build, call or make before anything of ours could refuse it, as conf/config.yaml
# leaves it, and what to use instead.
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
    """Composes as Hydra does. Raises UsageError for what can't be composed."""

    def load_configuration(self, *arguments: Any, **named: Any) -> DictConfig:
        choices = functools.cache(lambda group: self.get_group_options(group, ObjectType.CONFIG))
        overrides = named["overrides"] = [_local_once(each) for each in named["overrides"]]
        for override in overrides:
            secrets.require_none_typed(override)
            if complaint := explain.wrong_choice(override, choices):
                raise UsageError(complaint)
        try:
            config = super().load_configuration(*arguments, **named)
        # What Hydra raises for a mistake may be a plain ValueError or AttributeError; composing
        # depends on nothing but what was typed and the files in conf/.
        except Exception as error:
            groups = [each for each in overrides if choices(each.partition("=")[0])]
            known = functools.partial(self._known, *arguments, **named | {"overrides": groups})
            raise UsageError(explain.composition(error, overrides, known)) from error
        _require_fixed(config)
        return config

    def _known(self, *arguments: Any, **named: Any) -> list[str]:
        """The settings that there are; none if it can't be composed."""
        try:
            return [
                "hydra.sweep.dir",
                *dotted_keys(super().load_configuration(*arguments, **named)),
            ]
        except Exception:  # what is wrong with it is not what was asked
            return []


def _local_once(override: str) -> str:
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
    # Hydra holds a sweeper's parameters to be text, but builds them like a callback.
    params = plain["sweeper"].get("params") or {}
    if not isinstance(params, dict):
        raise UsageError("hydra.sweeper.params should be a group of settings")
    for name in params:
        if str(name).startswith("_"):
            raise UsageError(f"hydra.sweeper.params.{name} is no setting")


def _require_launcher(launcher: Any) -> None:
    """Hydra's own, or an installed plugin of it, as by `hydra/launcher=joblib`: no other does Hydra
    build. But it would build whatever class their settings name."""
    target = launcher.get("_target_") if isinstance(launcher, dict) else None
    own = f"{_PLUGINS}.basic_launcher.BasicLauncher"
    is_plugin = isinstance(target, str) and target.startswith("hydra_plugins.")
    if target != own and not is_plugin:
        raise UsageError("hydra.launcher can't be changed, but for an installed one of Hydra's")
    if _names_class({key: value for key, value in launcher.items() if key != "_target_"}):
        raise UsageError("hydra.launcher can't be changed: its settings name a class")


def _names_class(value: Any) -> bool:
    """Whether any setting inside is one of those by which Hydra builds and calls things."""
    if isinstance(value, dict):
        return any(
            str(key) in ("_target_", "_args_", "_partial_", "_convert_") or _names_class(inner)
            for key, inner in value.items()
        )
    return isinstance(value, list) and any(map(_names_class, value))
