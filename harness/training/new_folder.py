"""The folder of a fresh run."""

from __future__ import annotations

import itertools
import os
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from harness.common.errors import UsageError
from harness.common.values import show
from harness.config.settings import Settings
from harness.runs.folder import RunFolder


def require_free(settings: Settings) -> None:
    """Raises UsageError if run_dir exists, but for resume=auto, and if it can't be made."""
    path = Path(settings.run_dir or "")
    try:
        if path.exists() and not settings.resume:
            raise RunFolder(path).already_exists()
        base = next(
            parent for parent in (path.absolute(), *path.absolute().parents) if parent.exists()
        )
    except OSError as error:
        raise UsageError(f"run_dir={show(path)}: {error.strerror}") from error
    if not (base.is_dir() and os.access(base, os.W_OK)):
        raise UsageError(f"run_dir={show(path)}: {base} is not a writable folder")


def create_run_folder(settings: Settings) -> RunFolder:
    """run_dir, or else the first free name of this second. What is there for resume=auto has no
    configuration yet."""
    if settings.run_dir:
        folder = RunFolder(Path(settings.run_dir))
        if not (settings.resume and folder.path.exists()):
            folder.create(settings.dump())
        return folder
    now, names = datetime.now(), settings.names
    day = Path("runs") / f"{now:%Y-%m-%d}"
    name = f"{now:%H-%M-%S}-{names.model}-{names.tokenizer}-s{settings.seed}"
    for suffix in itertools.chain([""], (f"-{number}" for number in itertools.count(2))):
        folder = RunFolder(day / (name + suffix))
        with suppress(UsageError):  # taken, perhaps by another process just now
            folder.create(settings.dump())
            return folder
    raise AssertionError("unreachable")
