"""A run's folder: what is written where, and read back."""

from __future__ import annotations

import fcntl
import logging
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.common.errors import RunFailure, UsageError
from harness.common.files import atomic_write, remove_leftovers
from harness.common.paths import REPOSITORY
from harness.runs import config, samples


class _IndentedFormatter(logging.Formatter):
    """Lines of a record after its first are indented: no text in one can pose as another record."""

    def format(self, record: logging.LogRecord) -> str:
        return "\n    ".join(super().format(record).splitlines())


class _LogFile(logging.FileHandler):
    """A full disk is said once, in words, on the screen: not by a traceback for each line lost."""

    def handleError(self, record: logging.LogRecord) -> None:
        pass


class RunFolder:
    """Its configuration, numbers, checkpoints, tokenizer, samples and log."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / config.FILE
        self.checkpoints = path / "checkpoints"
        self.tokenizer = path / "tokenizer"
        self.counts = path / "train_counts.npy"
        self.samples = path / samples.FILE
        self.log = path / "train.log"

    @classmethod
    def existing(cls, path: Path) -> RunFolder:
        """Raises UsageError if there is no run."""
        folder = cls(path)
        if not folder.config.is_file():
            raise UsageError(f"{path} is not a run's folder: it has no {folder.config.name}")
        return folder

    def create(self, config: str) -> None:
        """Raises UsageError if something is there already: nothing is ever overwritten."""
        if self.path.exists():
            raise UsageError(self.taken)
        # Made aside: a run that is killed as it begins must not leave a folder that is in the way.
        aside = RunFolder(self.path.with_name(f".{self.path.name}.{uuid.uuid4().hex[:8]}"))
        try:
            aside.checkpoints.mkdir(parents=True)
            aside.write_config(config)
            aside.path.rename(self.path)
        except OSError as error:
            if self.path.exists():  # another process's, made this very moment
                raise UsageError(self.taken) from None
            raise RunFailure(f"{self.path} can't be made: {error.strerror}") from error
        finally:
            shutil.rmtree(aside.path, ignore_errors=True)

    @property
    def taken(self) -> str:
        """What to say when the folder is in the way."""
        return (
            f"run_dir={self.path} exists already; go on with it by resume=true, "
            "or choose another run_dir"
        )

    @contextmanager
    def claimed(self) -> Iterator[None]:
        """Inside, no other process trains in this folder, and what killed ones left half written is
        gone. Raises UsageError if another one does."""
        with self.log.open("ab") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # gone with the process
            except BlockingIOError:
                raise UsageError(f"{self.path} is in use: another process trains there") from None
            except OSError:  # a file system without locks
                pass
            for folder in (self.path, self.checkpoints, self.tokenizer):
                remove_leftovers(folder)
            yield

    @contextmanager
    def logging(self, quiet: bool = False) -> Iterator[None]:
        """The log of harness and zoo, and Python's warnings, on stderr (quiet: errors alone) and in
        train.log, which alone has what is logged for debugging."""
        screen = logging.StreamHandler()
        screen.setLevel(logging.ERROR if quiet else logging.INFO)
        file = _LogFile(self.log, encoding="utf-8", errors="backslashreplace")
        screen.setFormatter(_IndentedFormatter("%(message)s"))
        file.setFormatter(_IndentedFormatter("%(asctime)s %(levelname)s %(message)s"))
        loggers = [logging.getLogger(name) for name in ("harness", "zoo", "py.warnings")]
        logging.captureWarnings(True)
        for logger in loggers:
            logger.setLevel(logging.DEBUG)
            logger.handlers[:] = [screen, file]
        try:
            yield
        finally:
            logging.captureWarnings(False)
            for logger in loggers:
                logger.handlers.clear()
            with suppress(OSError):
                file.close()

    def write_config(self, config: str) -> None:
        with atomic_write(self.config) as file:
            file.write(config.encode())

    def write_counts(self, counts: NDArray[np.integer]) -> None:
        """(V,): how often each id occurs in the train split: what sampling may have to know."""

        with atomic_write(self.counts) as file:
            np.save(file, counts, allow_pickle=False)

    def read_counts(self, vocab_size: int) -> NDArray[np.integer] | None:
        """None if the run has none. Raises UsageError for what does not belong to its tokenizer."""

        try:
            counts = np.load(self.counts, allow_pickle=False)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, EOFError) as error:
            raise UsageError(f"{self.counts} can't be read: {error}") from error
        if getattr(counts, "shape", None) != (vocab_size,) or counts.dtype.kind not in "iu":
            raise UsageError(f"{self.counts} does not hold a count for each of {vocab_size} ids")
        return counts


@cache
def versions() -> dict[str, str]:
    """Of Python and of every package that a number can depend on."""
    import platform

    found = {"python": platform.python_version()}
    for package in (
        *("language-model-zoo", "torch", "numpy", "hydra-core", "omegaconf"),
        *("sentencepiece", "tiktoken", "tokenizers"),
    ):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


@cache
def git() -> dict[str, Any]:
    """The code's commit, and whether it differs from it; nulls outside a repository."""

    def ask(*command: str) -> str | None:
        try:
            answer = subprocess.run(
                ["git", "-C", str(REPOSITORY), *command], capture_output=True, text=True, timeout=5
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return answer.stdout.strip() if answer.returncode == 0 else None

    changes = ask("status", "--porcelain")
    return {"commit": ask("rev-parse", "HEAD"), "dirty": None if changes is None else bool(changes)}
