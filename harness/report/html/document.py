"""The page that shows a comparison."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from harness.report.html import figures, tables
from harness.report.html.figures import Content
from harness.report.html.pages import render
from harness.report.records.runs import RunRecord
from harness.report.statistics.differences import MOST_TESTED, neighbours
from harness.report.statistics.paired import DRAWS, LEVEL
from harness.report.statistics.ranking import Comparison, compare_runs
from harness.report.text.columns import LOSSY_NOTE, MEANS_NOTE, result, run_name, seed
from harness.report.text.export import csv_table, markdown
from harness.report.text.pairs import sentence
from harness.report.text.verdict import by_tokenizer, headlines, losses, notes

SAMPLE_CHARACTERS = 700
FEW_PAIRS = 15  # more are folded away

Pieces = list[tuple[str, int | None]]


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
    # Each section's name is its anchor and its template; one without content is left out.
    sections = {
        "ranking": _ranking(comparison),
        "lossy": _lossy(comparison),
        "differences": _differences(comparison),
        "curves": figures.curves(comparison),
        "cost": figures.costs(comparison),
        "losses": figures.losses_per_token(comparison),
        "samples": _samples(comparison),
        "configurations": _configurations(comparison),
        "runs": {"table": tables.runs(comparison)},
        "paper": _paper(comparison),
        "origin": _origin(comparison, command),
    }
    return render(
        "report.html.j2",
        title=_title(comparison),
        headlines=[
            (_linked(line.claim, comparison), _linked(line.ground, comparison))
            for line in headlines(comparison)
        ],
        notes=notes(comparison),
        sections={name: content for name, content in sections.items() if content},
    )


def _title(comparison: Comparison) -> str:
    models = ", ".join(dict.fromkeys(group.model for group in comparison.groups))
    data = ", ".join(dict.fromkeys(group.data for group in comparison.groups))
    return f"{models} on {data}" if comparison.groups else "Language models compared"


def _linked(line: str, comparison: Comparison) -> Pieces:
    """A sentence in pieces: each group's name with the number of its configuration."""
    numbers = {group.label: comparison.number(group) for group in comparison.groups}
    names = "|".join(re.escape(name) for name in sorted(numbers, key=len, reverse=True))
    if not names:
        return [(line, None)]
    parts = re.split(rf"(?<!\w)({names})(?!\w)", line)
    return [(part, numbers[part] if n % 2 else None) for n, part in enumerate(parts)]


def _ranking(comparison: Comparison) -> Content | None:
    if not comparison.ranked:
        return None
    return {
        "table": tables.ranking(comparison, comparison.ranked, "Ranking", lossy=False),
        "by_tokenizer": by_tokenizer(comparison),
        "means": MEANS_NOTE,
    }


def _lossy(comparison: Comparison) -> Content | None:
    if not comparison.lossy:
        return None
    return {
        "table": tables.ranking(comparison, comparison.lossy, "Lossy tokenizers", lossy=True),
        "why": LOSSY_NOTE,
        "losses": losses(comparison),
    }


def _differences(comparison: Comparison) -> Content | None:
    """The neighbours of the ranking in words, and every pair in a table."""
    tested = [(pair, pair.interval) for pair in comparison.pairs if pair.interval is not None]
    next_to_each_other = neighbours(comparison.pairs, comparison.ranked)
    if not next_to_each_other:
        return None
    longest = max(map(len, comparison.by_data().values()))
    return {
        "findings": [_linked(sentence(pair), comparison) for pair in next_to_each_other],
        "table": tables.pairs(comparison, tested) if tested else None,
        "folded": len(tested) > FEW_PAIRS,
        "level": f"{LEVEL:.0%}",
        "draws": f"{DRAWS:,}",
        "p": f"{1 - LEVEL:.2g}",
        "one_seed": any(len(pair.seeds) == 1 for pair, _ in tested),
        "family": max((pair.family for pair, _ in tested), default=0),
        "first": MOST_TESTED if longest > MOST_TESTED else None,
    }


def _samples(comparison: Comparison) -> Content | None:
    samples = []
    for group in comparison.groups:
        run = next((run for run in group.counted if run.sample), None)
        if run and run.sample:
            more = " …" if len(run.sample) > SAMPLE_CHARACTERS else ""
            samples.append(
                {
                    "number": comparison.number(group),
                    "label": group.label,
                    "seed": seed(run),
                    "step": run.sample_step,
                    "text": run.sample[:SAMPLE_CHARACTERS] + more,
                }
            )
    return {"samples": samples} if samples else None


def _configurations(comparison: Comparison) -> Content | None:
    """What differs between them, and each of them whole."""
    groups = comparison.configurations
    differing = tables.differing_settings(groups)
    keys = {row[0].text for row in differing.rows}
    configurations = [
        {
            "number": number,
            "swatch": tables.swatch(number),
            "label": group.label,
            "runs": [
                {
                    "seed": seed(run),
                    "name": run_name(run, comparison.records),
                    "result": result(run) or run.status,
                }
                for run in group.runs
            ],
            "lines": [
                (f"{key}: {value}", key in keys) for key, value in sorted(group.config.items())
            ],
        }
        for number, group in enumerate(groups)
    ]
    return {"differing": differing, "configurations": configurations} if groups else None


def _paper(comparison: Comparison) -> Content | None:
    if not comparison.groups:
        return None
    return {"texts": {"Markdown": markdown(comparison), "CSV": csv_table(comparison)}}


def _origin(comparison: Comparison, command: str) -> Content:
    facts = {
        (name, ", ".join(f"{key} {value}" for key, value in sorted(stated.items()))): None
        for name in ("git", "machine", "versions")
        for run in comparison.records
        if (stated := getattr(run, name))
    }
    return {"facts": list(facts), "command": command}
