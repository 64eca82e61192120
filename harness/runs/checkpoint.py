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
import zipfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import IO, Any, BinaryIO, ClassVar, TypeVar, cast

import torch

from harness.common import contained
from harness.common.errors import RunFailure
from harness.common.files import atomic_write, writing
from harness.common.values import fits, show
from harness.compute.memory import total_memory
from harness.runs.restore import require_names, require_ordinary

LOG = logging.getLogger("harness")
FORMAT = 3


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """Weights and what they were trained on. model: their state_dict. tokenizer, corpus: SHA-256.
    settings: those that decide the weights. Subclasses are the kinds of files."""

    name: ClassVar[str]
    step: int
    model: dict[str, Any]
    tokenizer: str
    corpus: str
    settings: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class BestCheckpoint(Checkpoint):
    """The evaluated weights with the best validation score."""

    name = "best"


@dataclass(frozen=True, kw_only=True)
class StepCheckpoint(Checkpoint):
    """Everything needed to resume. average: of the weights, if the run keeps one."""

    name = "step"
    optimizer: dict[str, Any]
    scaler: dict[str, Any]
    progress: dict[str, Any]
    guard: dict[str, Any]
    average: dict[str, Any] | None = None


T = TypeVar("T")
C = TypeVar("C", bound=Checkpoint)


def save(folder: Path, state: Checkpoint, keep: Collection[int | None]) -> Path:
    """Write one checkpoint and verify what is on the disk by its SHA-256. Then remove the others of
    its kind, except those of the steps to `keep`.

    Raises RunFailure if it can't be written; older checkpoints are then untouched.
    """
    kind = type(state)
    path = _path(folder, kind, state.step)
    with atomic_write(path, inside=2) as file:
        hashing = _HashingFile(file)
        values = {name: value for name, value in vars(state).items() if value is not None}
        contents = {"format": FORMAT, "kind": kind.name, **values}
        torch.save(contents, cast(IO[bytes], hashing))
        if hashing.error is not None:
            raise hashing.error
        digest = hashing.sha256.hexdigest()
        _flush(file)
        file.seek(0)
        if hashlib.file_digest(file, "sha256").hexdigest() != digest:
            raise RunFailure(f"{path} does not read back as it was written: check the disk")
        # The digest first: a file without its digest is not a checkpoint.
        with atomic_write(_digest_path(path), inside=2) as digest_file:
            digest_file.write(_digest_line(path, digest))
    keep_only(folder, kind, [state.step, *keep])
    return path


def keep_only(folder: Path, kind: type[Checkpoint], steps: Collection[int | None]) -> None:
    """Remove the checkpoints of this kind at other steps, later ones included: a resumed run may go
    another way, and they must not pass for its newest. Raises RunFailure."""
    for other in list_steps(folder, kind):
        if other not in steps:
            path = _path(folder, kind, other)
            with writing(path):
                contained.unlink(path, inside=2)
                contained.unlink(_digest_path(path), inside=2)


def digest_of(folder: Path, state: Checkpoint) -> str:
    """The SHA-256 that lies beside a checkpoint."""
    path = _digest_path(_path(folder, type(state), state.step))
    return contained.read(path, inside=2).decode().partition(" ")[0]


def require_none(folder: Path, *kinds: type[Checkpoint]) -> None:
    """Before a training begins at step 0. Raises RunFailure if there is a checkpoint."""
    for kind in kinds:
        if steps := list_steps(folder, kind):
            raise RunFailure(
                f"{folder} holds a {kind.name} checkpoint, of step {steps[0]}, and the run was to "
                "begin: nothing is overwritten; choose another run_dir"
            )


def load(folder: Path, kind: type[C], step: int | None = None) -> C | None:
    """The newest intact checkpoint of a kind, or the one of a step; None if there is none.

    Damaged ones are skipped with a warning. Raises RunFailure if all are damaged, and for an intact
    file that is not a checkpoint of this format. Only tensors and plain values are unpickled.
    """
    steps = [each for each in list_steps(folder, kind) if step in (None, each)]
    for found in steps:
        path = _path(folder, kind, found)
        if not is_intact(path):
            LOG.warning(f"{path} is damaged (its SHA-256 is wrong); skipping it")
            continue
        try:
            with contained.open_binary(path, inside=2) as file:
                _require_bounded(file)
                state = torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:  # torch raises anything for malformed files
            reason = f"{error}".strip().partition("\n")[0] or type(error).__name__
            raise RunFailure(f"{path} can't be read as tensors and values: {reason}") from error
        return _from_contents(path, kind, found, state)
    if steps and step is not None:
        raise RunFailure(f"{_path(folder, kind, step)} is damaged")
    if steps:
        raise RunFailure(
            f"every {kind.name} checkpoint in {folder} is damaged; nothing can be resumed"
        )
    return None


def _from_contents(path: Path, kind: type[C], step: int, contents: object) -> C:
    if not isinstance(contents, dict):
        raise RunFailure(f"{path} is not a checkpoint: it holds a {type(contents).__name__}")
    if contents.get("format") != FORMAT:
        raise RunFailure(
            f"{path} has format {contents.get('format')}; this code reads format {FORMAT}: "
            "use the version of the code that wrote it"
        )
    values = {field.name: contents.get(field.name) for field in fields(kind)}
    hints = typing.get_type_hints(kind)
    for field in fields(kind):
        if not fits(values[field.name], hints[field.name]):
            raise RunFailure(
                f"{path} is not a checkpoint: {field.name} is missing or not of type {field.type}"
            )
    if values["step"] != step:
        raise RunFailure(f"{path} is not a checkpoint of step {step}: it is of {values['step']}")
    try:
        require_ordinary(values)
    except ValueError as error:
        raise RunFailure(f"{path} is not a checkpoint: {error}") from error
    return kind(**cast(dict[str, Any], values))


@contextmanager
def restoring(folder: Path) -> Iterator[None]:
    """Inside, the state of a checkpoint is loaded into a model, an optimizer and so on. Raises
    RunFailure if it does not fit: whoever changed a file could change its digest, too."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, ValueError, TypeError, LookupError, ArithmeticError) as error:
        reason = textwrap.shorten(str(error), 200)
        raise RunFailure(f"a checkpoint in {folder} does not fit its run: {reason}") from error


def from_checkpoint(kind: type[T], saved: dict[str, Any]) -> T:
    """A dataclass from all of its fields. Raises TypeError for one of the wrong type, ValueError
    for one that is missing or has another name."""
    hints = typing.get_type_hints(kind)
    require_names(hints, saved, kind.__name__.lower())
    for name, value in saved.items():
        if not fits(value, hints[name]):
            raise TypeError(f"{kind.__name__.lower()}.{name} is {show(value)}")
    return kind(**saved)


def list_steps(folder: Path, kind: type[Checkpoint]) -> list[int]:
    """The steps that have a checkpoint of this kind, newest first."""
    pattern = rf"{kind.name}-(\d{{8,15}})\.pt"
    try:
        found = [re.fullmatch(pattern, name) for name in contained.names(folder)]
    except OSError as error:
        raise RunFailure(f"{folder} can't be read: {error.strerror}") from error
    return sorted((int(name[1]) for name in found if name), reverse=True)


def is_intact(path: Path) -> bool:
    """Whether the file matches the digest beside it."""
    try:
        with contained.open_binary(path, inside=2) as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        return contained.read(_digest_path(path), inside=2) == _digest_line(path, digest)
    except contained.UnsafeFile as error:
        raise RunFailure(f"{error}, and no checkpoint of {path.parent}") from error
    except OSError:
        return False


def _require_bounded(file: BinaryIO) -> None:
    """Raises ValueError for a file that holds more than its size says: a compressed one, or one
    whose entries share bytes. torch writes neither. Also for one that no memory here can hold."""
    with zipfile.ZipFile(file) as archive:
        entries = sorted(archive.infolist(), key=lambda entry: entry.header_offset)
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise ValueError("it is compressed")
    starts = [entry.header_offset for entry in entries]
    sizes = [max(entry.file_size, entry.compress_size) for entry in entries]
    end = file.seek(0, os.SEEK_END)
    for start, size, following in zip(starts, sizes, [*starts[1:], end], strict=True):
        if start + zipfile.sizeFileHeader + size > following:  # type: ignore[attr-defined]
            raise ValueError("its entries overlap")
    if sum(sizes) > (memory := total_memory(torch.device("cpu"))):
        raise ValueError(f"it holds {sum(sizes):,} bytes, and the memory here is {memory:,}")
    file.seek(0)


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


def _digest_line(path: Path, digest: str) -> bytes:
    return f"{digest}  {path.name}\n".encode()


def _path(folder: Path, kind: type[Checkpoint], step: int) -> Path:
    return folder / f"{kind.name}-{step:08d}.pt"


def _digest_path(path: Path) -> Path:
    return path.with_name(path.name + ".sha256")
