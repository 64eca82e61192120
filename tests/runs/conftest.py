"""A finished run, to be tampered with."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest


@pytest.fixture
def copied(finished_run: Path, tmp_path: Path) -> Path:
    """The finished run, to be tampered with."""
    return Path(shutil.copytree(finished_run, tmp_path / "copied"))
