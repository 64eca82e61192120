"""The runs of a sweep, read from its folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.conftest import Ended

Command = Callable[..., Ended]


def without_model(small: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(override for override in small if not override.startswith("model."))


def trace(run: Path) -> list[dict[str, Any]]:
    """metrics.jsonl, but for the seconds."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


def status(run: Path) -> str:
    return json.loads((run / "summary.json").read_text())["status"]


def folders(sweep: Path) -> list[str]:
    return sorted(path.name for path in sweep.iterdir() if path.is_dir())


def contents(run: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(path.relative_to(run)): (path.stat().st_mtime_ns, path.read_bytes())
        for path in sorted(run.rglob("*"))
        if path.is_file()
    }
