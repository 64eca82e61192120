"""Atomic checkpoints: written to a temporary file, flushed, verified, then moved into place. Older
ones are removed only afterwards.

`step-00000500.pt` holds everything needed to resume, `best-00000500.pt` the best weights. Beside
each lies its SHA-256, in the format that `sha256sum -c` reads.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import textwrap
import typing
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, TypeVar, cast

import torch

from harness.common.errors import RunFailure
from harness.common.files import atomic_write, sha256_of
from harness.common.values import fits, show

T = TypeVar("T")
LOG = logging.getLogger("harness")
FORMAT = 3
# The fields of every checkpoint, and those that resuming needs, too.
REQUIRED = {"step": int, "model": dict, "tokenizer": str, "corpus": str, "settings": dict}
REQUIRED_TO_RESUME = {"optimizer": dict, "scaler": dict, "progress": dict, "guard": dict}


def save(
    folder: Path, kind: str, step: int, state: dict[str, Any], keep: Collection[int | None]
) -> Path:
    """Write one checkpoint and verify what is on the disk by its SHA-256. Then remove the others of
    its kind, except those of the steps to `keep`.

    Raises RunFailure if it can't be written; older checkpoints are then untouched.
    """
    path = _path(folder, kind, step)
    with atomic_write(path) as file:
        hashing = _HashingFile(file)
        contents = {"format": FORMAT, "kind": kind, "step": step, **state}
        torch.save(contents, cast(IO[bytes], hashing))
        if hashing.error is not None:
            raise hashing.error
        digest = hashing.sha256.hexdigest()
        _flush(file)
        if sha256_of(Path(file.name)) != digest:
            raise RunFailure(f"{path} does not read back as it was written: check the disk")
        # The digest first: a file without its digest is not a checkpoint.
        with atomic_write(_digest_path(path)) as digest_file:
            digest_file.write(_digest_line(path, digest))
    _flush_folder(folder)
    keep_only(folder, kind, [step, *keep])
    return path


def keep_only(folder: Path, kind: str, steps: Collection[int | None]) -> None:
    """Remove the checkpoints of this kind at other steps, later ones included: a resumed run may go
    another way, and they must not pass for its newest."""
    for other in list_steps(folder, kind):
        if other not in steps:
            _path(folder, kind, other).unlink()
            _digest_path(_path(folder, kind, other)).unlink(missing_ok=True)


def load(folder: Path, kind: str) -> dict[str, Any] | None:
    """The newest intact checkpoint of a kind, or None if there are no checkpoints of it.

    Damaged ones are skipped with a warning. Raises RunFailure if all are damaged, and for an intact
    file that is not a checkpoint of this format. Only tensors and plain values are unpickled.
    """
    steps = list_steps(folder, kind)
    for step in steps:
        path = _path(folder, kind, step)
        if not is_intact(path):
            LOG.warning(f"{path} is damaged (its SHA-256 is wrong); skipping it")
            continue
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # torch raises anything for malformed files
            reason = f"{error}".strip().partition("\n")[0] or type(error).__name__
            raise RunFailure(f"{path} can't be read as tensors and values: {reason}") from error
        if not isinstance(state, dict):
            raise RunFailure(f"{path} is not a checkpoint: it holds a {type(state).__name__}")
        if state.get("format") != FORMAT:
            raise RunFailure(
                f"{path} has format {state.get('format')}; this code reads format {FORMAT}: "
                "use the version of the code that wrote it"
            )
        for name, type_ in (REQUIRED | (REQUIRED_TO_RESUME if kind == "step" else {})).items():
            if not isinstance(state.get(name), type_):
                raise RunFailure(
                    f"{path} is not a checkpoint: {name} is missing or not of type {type_.__name__}"
                )
        return dict(state)
    if steps:
        raise RunFailure(f"every {kind} checkpoint in {folder} is damaged; nothing can be resumed")
    return None


@contextmanager
def restoring(folder: Path) -> Iterator[None]:
    """Inside, the state of a checkpoint is loaded into a model, an optimizer and so on. Raises
    RunFailure if it does not fit: whoever changed a file could change its digest, too."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, ValueError, TypeError, KeyError, AttributeError) as error:
        reason = textwrap.shorten(str(error), 200)
        raise RunFailure(f"a checkpoint in {folder} does not fit its run: {reason}") from error


def from_checkpoint(kind: type[T], saved: dict[str, Any]) -> T:
    """A dataclass from its fields. Raises TypeError for a field of the wrong type."""
    hints = typing.get_type_hints(kind)
    for name, value in saved.items():
        if name in hints and not fits(value, hints[name]):
            raise TypeError(f"{kind.__name__}.{name} is {show(value)}")
    return kind(**saved)


def list_steps(folder: Path, kind: str) -> list[int]:
    """The steps that have a checkpoint of this kind, newest first."""
    names = (re.fullmatch(rf"{kind}-(\d+)\.pt", path.name) for path in folder.glob("*.pt"))
    return sorted((int(name[1]) for name in names if name), reverse=True)


def is_intact(path: Path) -> bool:
    """Whether the file matches the digest beside it."""
    try:
        return _digest_path(path).read_bytes() == _digest_line(path, sha256_of(path))
    except OSError:
        return False


class _HashingFile:
    """Computes the SHA-256 of everything written, and keeps the OSError of a failed write, which
    torch would hide behind an error of its own."""

    def __init__(self, file: IO[bytes]) -> None:
        self.sha256 = hashlib.sha256()
        self.error: OSError | None = None
        self._file = file

    def write(self, data: bytes) -> int:
        self.sha256.update(data)
        if self.error is None:
            try:
                self._file.write(data)
            except OSError as error:
                self.error = error
        return len(data)

    def flush(self) -> None:
        """Called by torch; `_flush` does it once all is written."""


def _flush(file: IO[bytes]) -> None:
    """To the disk, and out of the page cache, so that it is read back from the disk."""
    file.flush()
    os.fsync(file.fileno())
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _flush_folder(folder: Path) -> None:
    """So that the new file's name is on the disk before an old file is removed."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _digest_line(path: Path, digest: str) -> bytes:
    return f"{digest}  {path.name}\n".encode()


def _path(folder: Path, kind: str, step: int) -> Path:
    return folder / f"{kind}-{step:08d}.pt"


def _digest_path(path: Path) -> Path:
    return path.with_name(path.name + ".sha256")
