"""Tables that sort, and other small parts of a page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.report.page import escape


@dataclass(frozen=True)
class Head:
    """A column's heading. `text` columns are left-aligned and sort by letters."""

    title: str
    unit: str = ""
    text: bool = False
    kind: str = ""


@dataclass(frozen=True)
class Cell:
    """A cell: its content as HTML, what it sorts by ("" goes last), and its CSS class."""

    content: str
    key: float | str = ""
    kind: str = ""


def caption(*sentences: str) -> str:
    return f'<p class="caption">{escape(" ".join(filter(None, sentences)))}</p>'


def details(summary: str, *content: str, kind: str = "") -> str:
    """Something that opens on demand; `summary` is HTML."""
    attribute = f' class="{kind}"' if kind else ""
    return f"<details{attribute}><summary>{summary}</summary>\n{chr(10).join(content)}\n</details>"


def table(heads: Sequence[Head], rows: Sequence[Sequence[Cell]], name: str) -> str:
    """A table whose columns sort, in a box that scrolls where it is too wide; `name` says what it
    holds to those who can't see it."""
    top = "".join(
        f'<th scope="col"{_class(head.kind, head.text)}><button type="button">{escape(head.title)}'
        f"{f'<small>{escape(head.unit)}</small>' if head.unit else ''}</button></th>"
        for head in heads
    )
    body = "".join(
        "<tr>"
        + "".join(
            f"<td{_class(cell.kind or head.kind, head.text)}"
            f' data-key="{escape(str(cell.key))}">{cell.content}</td>'
            for head, cell in zip(heads, row, strict=True)
        )
        + "</tr>"
        for row in rows
    )
    return (
        f'<div class="scroll" role="region" aria-label="{escape(name)}" tabindex="0">'
        f'<table class="sortable"><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def _class(kind: str, is_text: bool) -> str:
    names = f"{'text ' if is_text else ''}{kind}".strip()
    return f' class="{names}"' if names else ""


SORT_SCRIPT = """
for (const button of document.querySelectorAll(".sortable th button")) {
  button.addEventListener("click", () => {
    const head = button.parentElement, table = head.closest("table");
    const up = head.getAttribute("aria-sort") !== "ascending";
    for (const other of table.querySelectorAll("th")) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    const key = (row) => row.cells[head.cellIndex].dataset.key;
    const order = (a, b) => head.classList.contains("text")
      ? a.localeCompare(b, undefined, {numeric: true}) : a - b;
    const rows = [...table.tBodies[0].rows].map((row) => [key(row), row]);
    rows.sort(([a], [b]) => (a === "") - (b === "") || (up ? order(a, b) : order(b, a)));
    table.tBodies[0].append(...rows.map(([, row]) => row));
  });
}
"""
