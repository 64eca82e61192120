"""Certificates as they are asked for: made, printed, and counted."""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path

from harness.common.errors import UsageError
from harness.config.settings import Settings
from harness.referee.at_once import certify_each
from harness.referee.verify import verify_model
from harness.runs.certificate import Certificate
from harness.runs.find import run_folders
from harness.runs.summary import FILE

MARKS = {"passed": "✓", "sampled": "✓", "failed": "✗", "not applicable": "–", "unknown": "?"}


def of_model(settings: Settings, *, complete: bool, device: str) -> int:
    """Print the certificate of a model without a run; returns the exit code."""
    certificate = verify_model(settings, complete=complete, device=device)
    print(settings.model["_target_"])
    print(table(certificate))
    return int(bool(certificate.failed))


def of_runs(
    path: Path, *, complete: bool, device: str, trust: list[str], data_path: Path | None
) -> int:
    """Make and print the certificate of every finished run in a folder; returns the exit code."""
    said: list[str] = []
    folders = sorted(each for each in run_folders(path, said.append) if (each / FILE).exists())
    if not folders:
        raise UsageError("; ".join([f"{path}: no run here (no {FILE} at any depth)", *said]))
    for line in said:
        print(line, file=sys.stderr)
    code = 0
    made = certify_each(folders, complete=complete, device=device, trust=trust, data_path=data_path)
    for folder, found in zip(folders, made, strict=True):
        if not isinstance(found, Certificate):
            if len(folders) == 1:
                raise found
            print(f"{folder}: {found}", file=sys.stderr)
            code = 1
            continue
        print(folder)
        print(table(found))
        code |= bool(found.failed)
    return int(code)


def table(certificate: Certificate) -> str:
    """A line for each check, and the outcome."""
    width = max(len(check.name) for check in certificate.checks)
    lines = []
    for check in certificate.checks:
        label = {"passed": "", "failed": "FAILED "}.get(check.result, f"({check.result}) ")
        words = textwrap.shorten(label + check.words, 400)
        lines.append(f"  {MARKS[check.result]} {check.name:{width}}  {words}")
    return "\n".join([*lines, f"  {certificate.words}"])
