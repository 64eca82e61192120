"""The HTML report of a comparison."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.common.files import write_atomically
from harness.common.text import visible_line
from harness.report.drawing.curves import MAX_DRAWN
from harness.report.html import figures
from harness.report.html.pages import render
from harness.report.records.groups import Group
from harness.report.records.runs import RunRecord
from harness.report.statistics import differences, floor, ladder, paired, skills, texts
from harness.report.statistics.effects import Ablation
from harness.report.statistics.ranking import Comparison
from harness.report.statistics.targets import TargetCosts
from harness.report.statistics.where import Where
from harness.report.text import columns, effects, export, format, pairs, targets, verdict, where
from harness.report.text import ladder as ladder_words
from harness.report.text import skills as skill_words
from harness.report.text import texts as text_words

# Each is an anchor of the page and a template, which is empty where it does not apply.
SECTIONS = (
    "effects", "ranking", "ladder", "skills", "texts", "lossy", "differences", "where", "target",
    "curves", "cost", "losses", "samples", "configurations", "runs", "paper", "origin",
)  # fmt: skip


@dataclass(frozen=True)
class Asked:
    """What was found where more than the ranking was asked for; None where it was not."""

    where: Where | None = None
    target: TargetCosts | None = None
    ablation: Ablation | None = None


def write_report(
    comparison: Comparison,
    path: Path,
    sources: Sequence[Path],
    asked: Asked | None = None,
    command: str | None = None,
) -> None:
    """Write the comparison as one self-contained HTML file. Raises RunFailure if it can't be
    written.

    sources: the paths to name in the command that writes it again. asked: the answers to
    what else was asked. command: that writes it again, if it is not harness.compare.
    """
    asked = asked or Asked()
    options = ["--where"] * (asked.where is not None)
    options += ["--target", asked.target.text] if asked.target is not None else []
    again = command or shlex.join(
        ["python", "-m", "harness.compare", *map(str, sources), *options, "--out", str(path)]
    )
    write_atomically(path, _page(comparison, again, asked).encode())


def _page(comparison: Comparison, command: str, asked: Asked) -> str:
    values: dict[str, Any] = {
        "comparison": comparison,
        "found": asked.where,
        "target": asked.target,
        "ablation": asked.ablation,
        "command": command,
        "title": _title(comparison),
        "pieces": lambda line: _pieces(line, comparison),
        "samples": _samples(comparison),
        "differing": _differing(comparison.configurations),
        "runs": _runs(comparison),
        "facts": _facts(comparison),
        "level": f"{paired.LEVEL:.0%}",
        "max_drawn": MAX_DRAWN,
        "line": visible_line,
        # Modules whose functions the templates call.
        "columns": columns, "differences": differences, "export": export, "figures": figures,
        "ladder": ladder, "words": ladder_words, "skills": skills, "skill_words": skill_words,
        "floor": floor, "format": format, "paired": paired, "pairs": pairs, "verdict": verdict,
        "effects": effects, "targets": targets, "texts": texts, "text_words": text_words,
        "where": where,
    }  # fmt: skip
    sections = {name: render(f"report/{name}.html.j2", **values) for name in SECTIONS}
    shown = {name: content for name, content in sections.items() if content.strip()}
    return render("report.html.j2", sections=shown, **values)


def _title(comparison: Comparison) -> str:
    models = ", ".join(dict.fromkeys(group.model for group in comparison.groups))
    data = ", ".join(dict.fromkeys(group.data for group in comparison.groups))
    return f"{models} on {data}" if comparison.groups else "Language models compared"


def _pieces(line: str, comparison: Comparison) -> list[tuple[str, int | None]]:
    """A sentence split at group labels, each with the number of its configuration to link to."""
    numbers = {group.label: comparison.number(group) for group in comparison.groups}
    names = "|".join(re.escape(name) for name in sorted(numbers, key=len, reverse=True))
    if not names:
        return [(line, None)]
    parts = re.split(rf"(?<!\w)({names})(?!\w)", line)
    return [(part, numbers[part] if n % 2 else None) for n, part in enumerate(parts)]


def _samples(comparison: Comparison) -> list[tuple[int, Group, RunRecord]]:
    """The first run with a sample of each group."""
    return [
        (number, group, run)
        for number, group in enumerate(comparison.groups)
        for run in [run for run in group.counted if run.sample and run.sample.text][:1]
    ]


def _differing(groups: Sequence[Group]) -> dict[str, list[str]]:
    """The settings that differ between groups, with each group's value."""
    keys = sorted({key for group in groups for key in group.config})
    values = {key: [group.config.get(key, "–") for group in groups] for key in keys}
    return {key: own for key, own in values.items() if len(set(own)) > 1}


def _runs(comparison: Comparison) -> list[tuple[RunRecord, int | None, str]]:
    """Each run, the number of its configuration, and why it is not counted ("" if it is). Counted
    runs come first."""
    reasons = {run.folder: reason for run, reason in comparison.uncounted}
    groups = enumerate(comparison.configurations)
    numbers = {run.folder: number for number, group in groups for run in group.runs}
    found = [
        (run, numbers.get(run.folder), reasons.get(run.folder, "")) for run in comparison.records
    ]
    return sorted(found, key=lambda each: (each[0].folder in reasons, _natural_key(each[0])))


def _natural_key(run: RunRecord) -> list[tuple[int, str]]:
    """Sort key by which 2-gpt comes before 10-gpt."""
    parts = re.findall(r"\d+|\D+", str(run.folder))
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]


def _facts(comparison: Comparison) -> list[tuple[str, str]]:
    """The distinct versions of code, machine and packages."""
    found = {
        (name, ", ".join(f"{key} {value}" for key, value in sorted(stated.items()))): None
        for name in ("git", "machine", "versions")
        for run in comparison.records
        if (stated := getattr(run, name))
    }
    return list(found)
