"""A machine that is logged in nowhere, and loggers that fail, block or die."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness.loggers import followers
from tests.loggers.troubled import TROUBLE


@pytest.fixture(autouse=True)
def _a_machine_of_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not logged in anywhere, no network, and what trackio writes is the test's."""
    for name in [name for name in os.environ if name.startswith(("WANDB_", "TRACKIO_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    # A busy machine is no reason for a warning.
    for limit in ("START_UP", "LEAVING", "FINISHING"):
        monkeypatch.setattr(followers, limit, 600)


@pytest.fixture
def trouble(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., list[str]]]:
    """trouble("Open", …): the overrides that choose those loggers."""
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "troubled_loggers.py").write_text(TROUBLE)
    monkeypatch.syspath_prepend(tmp_path / "modules")
    yield lambda *names: [
        "trust=[troubled_loggers]",
        *(f"+logger.{name}._target_=troubled_loggers.{name}" for name in names),
    ]
    sys.modules.pop("troubled_loggers", None)
