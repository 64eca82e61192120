"""The loggers of a run, as its configuration names them."""

from __future__ import annotations

from importlib.util import find_spec

from harness.common.errors import UsageError
from harness.common.interrupt import Interrupt
from harness.config.build import build_object
from harness.config.settings import Settings
from harness.loggers.base import Logger
from harness.loggers.followers import Followers


def choose_loggers(settings: Settings, interrupt: Interrupt) -> list[Logger]:
    """The local one, and all others behind it."""
    others = [name for name in settings.logger if name != "local"]
    return [build_logger(settings, "local"), *([Followers(others, interrupt)] if others else [])]


def build_logger(settings: Settings, name: str) -> Logger:
    """Raises UsageError for a class that is no logger, and for a missing library."""
    logger = build_object(settings.logger[name], Logger, f"logger.{name}", settings.trust)
    for package in {module.partition(".")[0] for module in logger.modules}:
        if find_spec(package) is None:
            raise UsageError(f"logger.{name}: needs the package {package} (pip install {package})")
    return logger
