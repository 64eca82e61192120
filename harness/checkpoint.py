"""Checkpoints that are whole or not there: written aside, verified, then moved into place.

`step-00000500.pt` holds all it takes to go on; `best-00000500.pt` the weights that scored best.
Beside each lies its SHA-256, in the format `sha256sum -c` reads.
"""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

import torch

from harness.assets import digest_of, placed
from harness.errors import RunFailure

LOG = logging.getLogger("harness")
FORMAT = 1
KEPT = {"step": 2, "best": 1}  # the newest may turn out damaged: the one before is kept as well


def save(folder: Path, kind: str, step: int, state: dict[str, Any]) -> Path:
    """Write one checkpoint, read it back against its digest, then remove older ones of its kind.

    Raises RunFailure when it can't be written; what was there before is then untouched.
    """
    path = _path(folder, kind, step)
    with placed(path) as file:
        torch.save({"format": FORMAT, "kind": kind, "step": step, **state}, file)
        file.flush()
        digest = digest_of(Path(file.name))
        # First the digest, then the file it is of: a file without a digest is not a checkpoint.
        with placed(_digest_path(path)) as digest_file:
            digest_file.write(f"{digest}  {path.name}\n".encode())
    if not is_whole(path):
        raise RunFailure(f"{path} does not read back as it was written: check the disk")
    # Those above are of a past that a resumed run has left: they must never pass for the newest.
    remove_above(folder, kind, step)
    for old in list_steps(folder, kind)[KEPT[kind] :]:
        _remove(folder, kind, old)
    return path


def remove_above(folder: Path, kind: str, step: int) -> None:
    """Remove the checkpoints of this kind that are of a later step."""
    for later in list_steps(folder, kind):
        if later > step:
            _remove(folder, kind, later)


def load(folder: Path, kind: str) -> dict[str, Any] | None:
    """The newest whole checkpoint of a kind, or None if there never was one.

    A damaged one is passed over with a warning. Raises RunFailure if all of them are damaged, and
    for one of another format. Nothing but tensors and plain values is ever unpickled.
    """
    steps = list_steps(folder, kind)
    for step in steps:
        path = _path(folder, kind, step)
        if not is_whole(path):
            LOG.warning(f"{path} is damaged (its SHA-256 is off); passing it over")
            continue
        state = torch.load(path, map_location="cpu", weights_only=True)
        if state.get("format") != FORMAT:
            raise RunFailure(
                f"{path} has format {state.get('format')}; this code reads format {FORMAT}: "
                "use the version of the code that wrote it"
            )
        return dict(state)
    if steps:
        raise RunFailure(f"every {kind} checkpoint in {folder} is damaged; nothing can be resumed")
    return None


def list_steps(folder: Path, kind: str) -> list[int]:
    """The steps that have a checkpoint of this kind, newest first."""
    names = (re.fullmatch(rf"{kind}-(\d+)\.pt", path.name) for path in folder.glob("*.pt"))
    return sorted((int(name[1]) for name in names if name), reverse=True)


def is_whole(path: Path) -> bool:
    """Whether the file matches the digest beside it."""
    try:
        return _digest_path(path).read_text().split()[0] == digest_of(path)
    except (OSError, IndexError, UnicodeDecodeError):
        return False


def _remove(folder: Path, kind: str, step: int) -> None:
    path = _path(folder, kind, step)
    path.unlink()
    _digest_path(path).unlink(missing_ok=True)


def _path(folder: Path, kind: str, step: int) -> Path:
    return folder / f"{kind}-{step:08d}.pt"


def _digest_path(path: Path) -> Path:
    return path.with_name(path.name + ".sha256")
