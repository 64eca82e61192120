"""Checkpoints that are whole or not there: written aside, flushed to the disk, verified, then moved
into place; only then do older ones go.

`step-00000500.pt` holds all it takes to go on; `best-00000500.pt` the weights that scored best.
Beside each lies its SHA-256, in the format `sha256sum -c` reads.
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
# What every checkpoint holds, and what more it takes to go on from one.
HELD = {"step": int, "model": dict, "tokenizer": str, "corpus": str, "settings": dict}
TO_GO_ON = {"optimizer": dict, "scaler": dict, "progress": dict, "guard": dict}


def save(
    folder: Path, kind: str, step: int, state: dict[str, Any], keep: Collection[int | None]
) -> Path:
    """Write one checkpoint, and read it back from the disk against the digest of what was meant to
    be written; then remove the others of its kind but those of the steps to `keep`.

    Raises RunFailure when it can't be written; what was there before is then untouched.
    """
    path = _path(folder, kind, step)
    with atomic_write(path) as file:
        hashing = _Hashing(file)
        contents = {"format": FORMAT, "kind": kind, "step": step, **state}
        torch.save(contents, cast(IO[bytes], hashing))
        if hashing.error is not None:
            raise hashing.error
        digest = hashing.sha256.hexdigest()
        _flush(file)
        if sha256_of(Path(file.name)) != digest:
            raise RunFailure(f"{path} does not read back as it was written: check the disk")
        # First the digest, then the file it is of: a file without a digest is not a checkpoint.
        with atomic_write(_digest_path(path)) as digest_file:
            digest_file.write(_digest_line(path, digest))
    _flush_folder(folder)
    keep_only(folder, kind, [step, *keep])
    return path


def keep_only(folder: Path, kind: str, steps: Collection[int | None]) -> None:
    """Remove the checkpoints of this kind that are of no step given. Later ones are of a past that
    a resumed run has left: they must never pass for the newest."""
    for other in list_steps(folder, kind):
        if other not in steps:
            _path(folder, kind, other).unlink()
            _digest_path(_path(folder, kind, other)).unlink(missing_ok=True)


def load(folder: Path, kind: str) -> dict[str, Any] | None:
    """The newest whole checkpoint of a kind, or None if there never was one.

    A damaged one is passed over with a warning. Raises RunFailure if all of them are damaged, and
    for one that is whole but no checkpoint, or of another format. Nothing but tensors and plain
    values is ever unpickled.
    """
    steps = list_steps(folder, kind)
    for step in steps:
        path = _path(folder, kind, step)
        if not is_whole(path):
            LOG.warning(f"{path} is damaged (its SHA-256 is off); passing it over")
            continue
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # malformed files make torch raise anything
            reason = f"{error}".strip().partition("\n")[0] or type(error).__name__
            raise RunFailure(f"{path} can't be read as tensors and values: {reason}") from error
        if not isinstance(state, dict):
            raise RunFailure(f"{path} is no checkpoint: it holds a {type(state).__name__}")
        if state.get("format") != FORMAT:
            raise RunFailure(
                f"{path} has format {state.get('format')}; this code reads format {FORMAT}: "
                "use the version of the code that wrote it"
            )
        for name, type_ in (HELD | (TO_GO_ON if kind == "step" else {})).items():
            if not isinstance(state.get(name), type_):
                raise RunFailure(
                    f"{path} is no checkpoint: its {name} is missing, or no {type_.__name__}"
                )
        return dict(state)
    if steps:
        raise RunFailure(f"every {kind} checkpoint in {folder} is damaged; nothing can be resumed")
    return None


@contextmanager
def fitting(folder: Path) -> Iterator[None]:
    """Inside, a checkpoint of this folder is put into the model it is of, and whatever else. Raises
    RunFailure if it does not fit: a digest proves no good will."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, ValueError, TypeError, KeyError, AttributeError) as error:
        reason = textwrap.shorten(str(error), 200)
        raise RunFailure(f"a checkpoint in {folder} does not fit its run: {reason}") from error


def rebuilt(kind: type[T], saved: dict[str, Any]) -> T:
    """A dataclass from its fields in a checkpoint. Raises TypeError for one of another type."""
    hints = typing.get_type_hints(kind)
    for name, value in saved.items():
        if name in hints and not fits(value, hints[name]):
            raise TypeError(f"{kind.__name__}.{name} is {show(value)}")
    return kind(**saved)


def list_steps(folder: Path, kind: str) -> list[int]:
    """The steps that have a checkpoint of this kind, newest first."""
    names = (re.fullmatch(rf"{kind}-(\d+)\.pt", path.name) for path in folder.glob("*.pt"))
    return sorted((int(name[1]) for name in names if name), reverse=True)


def is_whole(path: Path) -> bool:
    """Whether the file matches the digest beside it."""
    try:
        return _digest_path(path).read_bytes() == _digest_line(path, sha256_of(path))
    except OSError:
        return False


class _Hashing:
    """A file to write to that knows the digest of all that was meant to be in it, and what went
    wrong: torch would hide a full disk behind an error of its own."""

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
        """Torch asks for it; done once all is written."""


def _flush(file: IO[bytes]) -> None:
    """To the disk, and out of the memory that it would else be read back from."""
    file.flush()
    os.fsync(file.fileno())
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _flush_folder(folder: Path) -> None:
    """So that a new name is on the disk before an old one is gone from it."""
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
