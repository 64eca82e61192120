"""test_reads.jsonl: when, and by which command, test was read of a run that had not been chosen."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from harness.common.files import AppendedFile
from harness.common.rows import strict_json

FILE = "test_reads.jsonl"


def log_test_read(folder: Path, command: str) -> None:
    """Append one reading. Call it before test is read: raises RunFailure if it can't be logged."""
    file = AppendedFile(folder / FILE)
    time = datetime.now(UTC).isoformat(timespec="seconds")
    try:
        file.append(f"{strict_json({'time': time, 'command': command})}\n".encode())
    finally:
        file.close()
