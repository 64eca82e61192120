"""The commands that read a run, and a checkpoint's digest made to match."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from tests.conftest import Ended

Command = Callable[..., Ended]
TOOLS = (("evaluate",), ("sample", "--tokens", "1"))


def sign(path: Path) -> None:
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()  # a digest proves no good will
    path.with_name(path.name + ".sha256").write_text(f"{sha256}  {path.name}\n")
