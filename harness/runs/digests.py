"""digests.sha256: a run's text files as they were when its training ended, so that a flipped bit is
noticed. In the format that `sha256sum -c` reads.

Whoever resumes the run removes it first, and a certificate that is made later enters itself. A run
that was killed has none. config.yaml is compared with the checkpoint instead, and may be edited;
tokenizer/ has a digest of its own. It proves no good will: whoever changes a file can change its
digest.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from harness.common import contained
from harness.common.files import write_atomically
from harness.runs import blocks, metrics, samples, summary

FILE = "digests.sha256"
DIGESTED = (
    *(summary.FILE, metrics.FILE, samples.FILE, blocks.FILE),
    *("certificate.json", "train_counts.npy"),
)


def write(folder: Path) -> None:
    """Of all that is there. Raises RunFailure if it can't be written."""
    _write(folder, {name: digest for name in DIGESTED if (digest := _digest(folder / name))})


def enter(folder: Path, name: str) -> None:
    """A file of a run that has ended was written anew. Raises RunFailure."""
    if (known := _read(folder)) and (digest := _digest(folder / name)):
        _write(folder, known | {name: digest})


def complaints(folder: Path) -> list[str]:
    """A line for each file that is not as it was."""
    known = _read(folder)
    if known is None:
        return [f"{FILE} is damaged"]
    changed = [name for name, digest in known.items() if _digest(folder / name) not in (digest, "")]
    return [f"{name} is not what {FILE} says: it has changed since" for name in changed]


def _write(folder: Path, digests: dict[str, str]) -> None:
    lines = [f"{digest}  {name}\n" for name, digest in digests.items()]
    write_atomically(folder / FILE, "".join(lines).encode())


def _read(folder: Path) -> dict[str, str] | None:
    """Empty for a run that has none; None if it is damaged."""
    try:
        content = contained.read(folder / FILE)
    except FileNotFoundError:
        return {}
    except OSError:
        return None
    names = "|".join(map(re.escape, DIGESTED)).encode()
    if not re.fullmatch(rb"([0-9a-f]{64}  (%s)\n)*" % names, content):
        return None
    lines = content.decode().splitlines()
    return {name: digest for digest, _, name in (line.partition("  ") for line in lines)}


def _digest(path: Path) -> str:
    """Empty for a file that can't be read: its own reader says so."""
    try:
        with contained.open_binary(path) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""
