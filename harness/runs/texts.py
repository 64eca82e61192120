"""texts.json: the scores of further texts, by the weights that the run is ranked by.

`harness.evaluate --text` keeps them for `harness.compare`. What was made elsewhere, was edited, or
is of other weights is not believed.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError

from harness.common import contained
from harness.common.files import write_atomically
from harness.common.rows import strict_json
from harness.runs.certificate import scored_digest
from harness.runs.damage import DamageError, parse_json
from harness.runs.seal import is_sealed, seal
from harness.runs.summary import DEFINITION, Record, TextScore

FILE = "texts.json"
CHECKPOINTS = "checkpoints"
MOST = 256  # texts


class Texts(Record):
    """definition: of the scores. weights: digest of the checkpoint. texts: by their names."""

    definition: int
    weights: str
    texts: Annotated[dict[str, TextScore], Field(max_length=MOST)]
    seal: str | None = None

    def to_seal(self) -> str:
        return strict_json(self.model_dump(exclude={"seal"}, exclude_unset=True))


def keep(folder: Path, checkpoints: Path, scores: Mapping[str, TextScore]) -> None:
    """Add scores to those of the same weights, of which the last MOST are kept. Without a place
    for a key nothing is. Raises RunFailure if they can't be written."""
    weights = scored_digest(checkpoints)
    if weights is None:
        return
    before = {name: own for name, own in _read(folder, weights).items() if name not in scores}
    last = dict([*before.items(), *scores.items()][-MOST:])
    found = Texts(definition=DEFINITION, weights=weights, texts=last)
    if (mark := seal(found.to_seal())) is not None:
        found.seal = mark
        content = strict_json(found.model_dump(exclude_unset=True), indent=2)
        write_atomically(folder / FILE, f"{content}\n".encode())


def read(folder: Path) -> dict[str, TextScore]:
    """Those that were made here, of the run's weights by today's definition; else none. Of weights
    that lie elsewhere nobody can say that they are still the same: none."""
    weights = scored_digest(folder / CHECKPOINTS)
    return _read(folder, weights) if weights is not None else {}


def _read(folder: Path, weights: str) -> dict[str, TextScore]:
    try:
        found = Texts.model_validate(parse_json(contained.read_text(folder / FILE), FILE))
    except (OSError, DamageError, ValidationError):
        return {}
    if found.definition != DEFINITION or weights != found.weights:
        return {}
    return found.texts if is_sealed(found.to_seal(), found.seal) else {}
