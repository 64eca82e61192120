"""A run's folder: its paths, lock, log and token counts; and the versions that wrote it."""

from __future__ import annotations

import glob
import logging
import os
import platform
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from io import BytesIO, TextIOWrapper
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.common import contained
from harness.common.errors import RunFailure, UsageError
from harness.common.files import MARK, atomic_write, remove_folder, remove_leftovers, writing
from harness.common.paths import REPOSITORY, expand
from harness.common.text import visible
from harness.common.values import show
from harness.runs import config, lock, process, samples
from harness.runs.lock import Lock


class _IndentedFormatter(logging.Formatter):
    """Indents the lines of a record after its first, so that none of them can pose as a record, and
    shows control characters as �."""

    def format(self, record: logging.LogRecord) -> str:
        return "\n    ".join(map(visible, super().format(record).splitlines()))


class _LogFile(logging.FileHandler):
    """No traceback for each line that a full disk loses: the run fails with one clear line."""

    def _open(self) -> TextIOWrapper:
        return open(
            self.baseFilename, "a", encoding=self.encoding, errors=self.errors,
            opener=contained.opener,
        )  # fmt: skip

    def handleError(self, record: logging.LogRecord) -> None:
        pass


BEFORE_CONFIG = (process.FILE, "train.log")
# What numpy raises for a header, which is a piece of Python.
_OF_A_HEADER = (SyntaxError, TokenError)


class RunFolder:
    """The paths of a run's configuration, checkpoints, tokenizer, samples and log."""

    def __init__(self, path: Path, checkpoint_dir: str | None = None) -> None:
        self.path = path
        self._lock: Lock | None = None
        # Elsewhere only where the user says so: no link in the folder is followed.
        named = checkpoint_dir and expand(checkpoint_dir).absolute() / path.name
        self._elsewhere = named or None

    @property
    def config(self) -> Path:
        return self.path / config.FILE

    @property
    def checkpoints(self) -> Path:
        return self._elsewhere or self.path / "checkpoints"

    @property
    def tokenizer(self) -> Path:
        return self.path / "tokenizer"

    @property
    def counts(self) -> Path:
        return self.path / "train_counts.npy"

    @property
    def samples(self) -> Path:
        return self.path / samples.FILE

    @property
    def log(self) -> Path:
        return self.path / "train.log"

    @classmethod
    def existing(cls, path: Path, checkpoint_dir: str | None = None) -> RunFolder:
        """Raises UsageError if the folder holds no run."""
        folder = cls(path, checkpoint_dir)
        try:
            contained.open_binary(folder.config).close()
        except (FileNotFoundError, NotADirectoryError, ValueError):
            raise UsageError(
                f"{path} is not a run's folder: it has no {folder.config.name}"
            ) from None
        except OSError as error:
            raise UsageError(f"{folder.config} can't be read: {error.strerror}") from error
        return folder

    def is_unused(self) -> bool:
        """Whether it is absent, or holds at most what a run leaves that is killed before it has a
        configuration."""
        if not self.path.is_dir():
            return not self.path.exists()
        files = (path for path in self.path.rglob("[!.]*") if not path.is_dir())
        return all(path.name in BEFORE_CONFIG for path in files)

    def create(self, config: str) -> None:
        """Raises UsageError if the path exists already: nothing is ever overwritten."""
        if self.path.exists():
            raise self.already_exists()
        if self._elsewhere and self._elsewhere.exists():
            raise UsageError(
                f"checkpoint_dir: {self._elsewhere} exists already; choose another run_dir"
            )
        self._remove_unborn()
        # Made under another name: a run that is killed here must not leave a folder in the way.
        temporary = RunFolder(self.path.with_name(f".{self.path.name}{MARK}{uuid.uuid4().hex[:8]}"))
        try:
            temporary.checkpoints.mkdir(parents=True)
            if self._elsewhere:
                self._elsewhere.mkdir(parents=True)
            temporary.write_config(config)
            temporary.path.rename(self.path)
        except OSError as error:
            if self.path.exists():  # another process has just created it
                raise self.already_exists() from None
            raise RunFailure(f"{self.path} can't be created: {error.strerror}") from error
        finally:
            remove_folder(temporary.path)

    def _remove_unborn(self) -> None:
        """Remove what `create` left of this folder where it was killed."""
        pattern = f".{glob.escape(self.path.name)}{MARK}{'[0-9a-f]' * 8}"
        for left in self.path.parent.glob(pattern):
            files = [path.name for path in left.rglob("*") if not path.is_dir()]
            if all(name.startswith((config.FILE, f".{config.FILE}.")) for name in files):
                remove_folder(left)

    def already_exists(self) -> UsageError:
        """The error to raise where the folder should be new."""
        return UsageError(
            f"run_dir={self.path} exists already; go on with it by resume=true, "
            "or choose another run_dir"
        )

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Inside, no other process trains in this folder. Removes the temporary files of killed
        processes. Raises FolderInUse if another process holds the lock."""
        with lock.hold(self.path) as self._lock:
            remove_leftovers(self.path)
            for folder in (self.checkpoints, self.tokenizer):
                remove_leftovers(folder, inside=1)
            yield

    def require_checkpoint_dir(self, saved: str | None) -> None:
        """saved: where the run's configuration says that its checkpoints lie. Raises UsageError if
        the user has not said so, too."""
        if saved is not None and self._elsewhere is None:
            raise UsageError(
                f"{self.path} says that its checkpoints lie in {show(saved)}, and a folder's word "
                f"is not followed: if it is yours, give checkpoint_dir={show(saved)} (to other "
                "commands than train: --checkpoint-dir)"
            )

    def require_own(self) -> None:
        """Before each write. Raises FolderLost if the locked folder was moved, removed or
        replaced."""
        if self._lock is not None:
            self._lock.require()

    def follow(self) -> bool:
        """Find the locked folder again, wherever it was moved to; False if it is gone."""
        place = self.path if self._lock is None else self._lock.follow()
        self.path = place or self.path
        return place is not None

    @contextmanager
    def logging(self, quiet: bool = False) -> Iterator[None]:
        """Log harness, zoo and Python's warnings to stderr (quiet: errors only) and to train.log,
        which also has debug messages. Raises RunFailure if train.log can't be written."""
        screen = logging.StreamHandler()
        screen.setLevel(logging.ERROR if quiet else logging.INFO)
        with writing(self.log):
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
        """counts: (V,), how often each id occurs in the train split; for masking unused ids."""
        with atomic_write(self.counts) as file:
            np.save(file, counts, allow_pickle=False)

    def read_counts(self, vocab_size: int) -> NDArray[np.integer] | None:
        """None if the run has none. Raises UsageError if they do not fit its tokenizer."""
        unlike = UsageError(f"{self.counts} does not hold a count for each of {vocab_size} ids")
        try:
            file = BytesIO(contained.read(self.counts))
            # The shape first: numpy allocates what the header says.
            if np.lib.format.read_magic(file) != (1, 0):
                raise unlike
            shape, _, kind = np.lib.format.read_array_header_1_0(file)
            if shape != (vocab_size,) or kind.kind not in "iu":
                raise unlike
            file.seek(0)
            return np.load(file, allow_pickle=False)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, EOFError, RecursionError, MemoryError, *_OF_A_HEADER) as error:
            raise UsageError(f"{self.counts} can't be read: {error}") from error


@cache
def versions() -> dict[str, str]:
    """The versions of Python and of every package that results can depend on."""
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
    """The commit of the code and whether it has changes since; None if the code lies in no
    repository of its own. One around it, or one that variables name, as in a hook of git, is of
    other code."""
    environment = {key: text for key, text in os.environ.items() if not key.startswith("GIT_")}

    def run_git(*command: str) -> str | None:
        # Without locks: one that is ended here, or killed with its training, would leave its own.
        asked = ["git", "--no-optional-locks", "-C", str(REPOSITORY), *command]
        try:
            answer = subprocess.run(
                asked, env=environment, capture_output=True, text=True, timeout=5
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return answer.stdout.strip() if answer.returncode == 0 else None

    root = run_git("rev-parse", "--show-toplevel")
    if root is None or Path(root).resolve() != REPOSITORY:
        return {"commit": None, "dirty": None}
    changes = run_git("status", "--porcelain")
    return {
        "commit": run_git("rev-parse", "HEAD"),
        "dirty": None if changes is None else bool(changes),
    }
