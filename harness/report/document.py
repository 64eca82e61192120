"""The self-contained HTML page that shows a comparison."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from harness.report import figures, tables
from harness.report.export import csv_table, markdown
from harness.report.markup import SORT_SCRIPT, details
from harness.report.page import document, escape, section
from harness.report.ranking import Comparison, compare_runs
from harness.report.runs import RunRecord
from harness.report.stylesheet import STYLE, UNFOLD_SCRIPT
from harness.report.svg import swatch
from harness.report.tables import linked
from harness.report.verdict import headlines, notes

SAMPLE_CHARACTERS = 700


def write_report(
    records: Sequence[RunRecord], path: Path, sources: Sequence[Path] | None = None
) -> None:
    """Writes the comparison of these runs as one HTML file that needs nothing else.

    `sources` are the paths to name in the command that regenerates it (default: the runs' common
    folder). Raises OSError if the file can't be written.
    """
    comparison = compare_runs(records)
    if sources is None:
        parents = {run.folder.parent for run in records}
        sources = list(parents) if len(parents) == 1 else [run.folder for run in records]
    command = shlex.join(
        ["python", "-m", "harness.compare", *map(str, sources), "--out", str(path)]
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(_page(comparison, command), encoding="utf-8")


def _page(comparison: Comparison, command: str) -> str:
    sections = {
        "ranking": tables.ranking(comparison),
        "lossy": tables.lossy(comparison),
        "differences": tables.differences(comparison),
        "curves": figures.curves(comparison),
        "cost": figures.costs(comparison),
        "losses": figures.losses_per_token(comparison),
        "samples": _samples(comparison),
        "configurations": tables.configurations(comparison),
        "runs": tables.runs(comparison),
        "paper": _for_a_paper(comparison),
        "origin": _provenance(comparison, command),
    }
    sections = {name: content for name, content in sections.items() if content}
    anchored = [f'<div id="{name}">{content}</div>' for name, content in sections.items()]
    links = "".join(f'<a href="#{name}">{name}</a>' for name in sections)
    lines = [
        f"<h1>{escape(_title(comparison))}</h1>",
        *(
            f'<p class="lead">{linked(line.claim, comparison)}</p>'
            f'<p class="ground">{linked(line.ground, comparison)}</p>'
            for line in headlines(comparison)
        ),
        *(f'<p class="note" role="note">{escape(line)}</p>' for line in notes(comparison)),
        f'<nav aria-label="Sections">{links}</nav>',
    ]
    body = "\n".join([f"<header>{''.join(lines)}</header>", *anchored])
    return document(_title(comparison), body, STYLE, SORT_SCRIPT + UNFOLD_SCRIPT)


def _title(comparison: Comparison) -> str:
    models = ", ".join(dict.fromkeys(group.model for group in comparison.groups))
    data = ", ".join(dict.fromkeys(group.data for group in comparison.groups))
    return f"{models} on {data}" if comparison.groups else "Language models compared"


def _samples(comparison: Comparison) -> str:
    cards = ""
    for group in comparison.groups:
        run = next((run for run in group.counted if run.sample), None)
        if run and run.sample:
            number = comparison.number(group)
            text = run.sample[:SAMPLE_CHARACTERS]
            more = " …" if len(run.sample) > SAMPLE_CHARACTERS else ""
            seed = "?" if run.seed is None else f"{run.seed:g}"
            cards += (
                f'<article><h3>{swatch(number)}<a href="#config-{number}">{escape(group.label)}'
                f'</a></h3><p class="caption">seed {seed}, after step {run.sample_step}</p>'
                f"<pre>{escape(text)}{more}</pre></article>"
            )
    return section("Sampled text", f'<div class="cards">{cards}</div>') if cards else ""


def _for_a_paper(comparison: Comparison) -> str:
    if not comparison.groups:
        return ""
    texts = {"Markdown": markdown(comparison), "CSV": csv_table(comparison)}
    return section(
        "The same tables for a paper",
        *(details(name, f"<pre>{escape(text)}</pre>") for name, text in texts.items()),
    )


def _provenance(comparison: Comparison, command: str) -> str:
    rows = ""
    for title, read in (
        ("git", lambda run: run.git),
        ("machine", lambda run: run.machine),
        ("versions", lambda run: run.versions),
    ):
        stated = dict.fromkeys(
            ", ".join(f"{key} {value}" for key, value in sorted(read(run).items()))
            for run in comparison.records
            if read(run)
        )
        for text in stated:
            rows += f"<dt>{title}</dt><dd>{escape(text)}</dd>"
    return section(
        "Made with",
        f"<dl>{rows}</dl>" if rows else "",
        f"<p>This page again:</p><pre>{escape(command)}</pre>",
    )
