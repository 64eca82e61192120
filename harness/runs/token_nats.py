"""val_token_nats.f32: the nats of every token of a split, twice: as scored, and with no context
before its window. `harness.compare --where` writes it, so that a run is scored for it once.

A seal comes first. What was made elsewhere, edited, or of another score is not believed, as the sum
alone would not show whose tokens are whose.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.common import contained
from harness.common.files import write_atomically
from harness.runs.seal import is_sealed, seal

FILES = {"val": "val_token_nats.f32", "test": "test_token_nats.f32"}
TYPE = np.dtype("<f4")
SEAL = 64  # bytes
TOLERANCE = 1e-3  # relative; another precision or machine changes a score by less


class TokenNats(NamedTuple):
    """Of the N tokens of a split after its first.

    full: as scored. limited: in windows of a fixed length that begin without context
    (`harness.evaluation.token_scores`). Both (N,).
    """

    full: NDArray[np.floating]
    limited: NDArray[np.floating]


def write(folder: Path, split: str, nats: TokenNats, score: str) -> None:
    """score: names the text and the score that they are of. Raises RunFailure if it can't be
    written. Without a place for a key nothing is kept."""
    content = np.stack(nats).astype(TYPE).tobytes()
    if (mark := seal(to_seal(split, content, score))) is not None:
        write_atomically(folder / FILES[split], mark.encode() + content)


def read(folder: Path, split: str, tokens: int, score: str) -> TokenNats | None:
    """None if there are none that were made here, of this score."""
    size = SEAL + 2 * tokens * TYPE.itemsize
    try:
        with contained.open_binary(folder / FILES[split]) as file:
            found = file.read(size + 1)
    except OSError:
        return None
    mark, content = found[:SEAL].decode("ascii", "ignore"), found[SEAL:]
    if len(found) != size or not is_sealed(to_seal(split, content, score), mark):
        return None
    return TokenNats(*np.frombuffer(content, TYPE).reshape(2, tokens))


def are_of(nats: TokenNats, total: float) -> bool:
    """Whether they sum to the run's score, `total` nats, and are finite."""
    spent = float(nats.full.sum(dtype=np.float64))
    finite = bool(np.isfinite(nats.limited).all())
    return finite and abs(spent - total) <= TOLERANCE * abs(total) + 1e-6  # False for NaN


def to_seal(split: str, content: bytes, score: str) -> str:
    """What the seal is of."""
    return f"{split} {score} {hashlib.sha256(content).hexdigest()}"
