"""The pages of the documentation."""

from __future__ import annotations

from pathlib import Path

from docs import import_graph

ROOT = import_graph.ROOT
PAGES = sorted(
    path for pattern in ("*.md", "docs/*.md", "experiments/**/*.md") for path in ROOT.glob(pattern)
)


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))
