"""The settings of a small job of a sweep."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.small_runs import SMALL


@pytest.fixture
def small(small_text: Path, tmp_path: Path) -> tuple[str, ...]:
    """Settings of a job of a fraction of a second."""
    return (
        *SMALL, f"data.path={small_text}", f"cache={tmp_path / 'cache'}",
        "model.n_layer=1", "model.n_head=2", "model.n_embd=16", "model.dropout=0.2",
    )  # fmt: skip
