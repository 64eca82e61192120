"""The table of scores by text in words."""

from __future__ import annotations

from harness.report.statistics.texts import TextRank
from harness.report.text.format import score

NOTE = (
    "Bits per byte on each text, and in brackets the rank on it among the models that have a score "
    "there: of the runs that are ranked above, by the same weights. Only differences on the text "
    "that they are ranked on are tested."
)


def cell(found: TextRank | None) -> str:
    """`2.351 ± 0.004 (1)`; – where there is none."""
    return "–" if found is None else f"{score(found.score)} ({found.rank})"
