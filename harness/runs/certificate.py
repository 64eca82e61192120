"""certificate.json: whether a run's score could have been had by looking ahead, check by check."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from harness.common import contained
from harness.common.files import atomic_write
from harness.common.rows import strict_json
from harness.runs import digests
from harness.runs.damage import DamageError, parse_json
from harness.runs.seal import is_sealed, seal
from harness.runs.summary import Number, Record, Scored, Summary

FILE = "certificate.json"
Result = Literal["passed", "sampled", "failed", "not applicable", "unknown"]


class Check(Record):
    """One check. sampled: it held where it was tried, which was not everywhere; words: what was
    tried, or what failed."""

    name: str
    result: Result
    words: str = ""


class SequentialScore(Record):
    """The test split scored again one token at a time: `tokens` of its `predictions`.

    bits_per_byte: None if sampled or lossy. difference: nats per token above the score's own calls;
    bound: the largest that rounding explains.
    """

    tokens: int
    predictions: int
    nats_per_token: Number
    bits_per_byte: Number | None
    difference: Number
    bound: Number


class Binding(Record):
    """What a certificate is for. definition: version of what a score is. Digests are SHA-256;
    weights: of the checkpoint's file; source: of the model's class and the modules that it uses.
    split: the shares of train, validation and test. reported: the test score, or where there is no
    test split the validation score."""

    definition: int
    weights: str | None = None
    source: str | None = None
    tokenizer: str | None = None
    corpus: str | None = None
    split: list[Number] | None = None
    reported: Scored | None = None


class Certificate(Record):
    """made_by: training has sampled, in its own process; verify has used a fresh one. complete:
    every token was scored again. state: numbers that the model keeps beside its parameters. seal:
    of all the rest (`harness.runs.seal`)."""

    made_by: Literal["training", "verify"]
    complete: bool
    bound_to: Binding
    checks: list[Check]
    score: SequentialScore | None = None
    parameters: int | None = None
    state: int | None = None
    seal: str | None = None

    @property
    def failed(self) -> list[Check]:
        return [check for check in self.checks if check.result == "failed"]

    @property
    def words(self) -> str:
        """The outcome in one line."""
        if self.failed:
            first = self.failed[0]
            return f"failed {first.name}: {first.words}"
        return "passed, every token scored again" if self.complete else "passed, sampled"

    @property
    def is_own(self) -> bool:
        """Whether this user made it on this machine."""
        return is_sealed(self._unsealed, self.seal)

    @property
    def _unsealed(self) -> str:
        """What its file says: fields that it was written without, before they were, are no part."""
        return strict_json(self.model_dump(exclude={"seal"}, exclude_unset=True))

    def sealed(self) -> Certificate:
        """With the user's seal, and with every field set, as its file has them."""
        whole = Certificate.model_validate(self.model_dump())
        return whole.model_copy(update={"seal": seal(whole._unsealed)})

    def write(self, folder: Path) -> None:
        """With the user's seal. Raises RunFailure if it can't be written."""
        with atomic_write(folder / FILE) as file:
            file.write((strict_json(self.sealed().model_dump(), indent=2) + "\n").encode())
        digests.enter(folder, FILE)


def read(folder: Path) -> Certificate | None:
    """None if there is none. Raises DamageError and OSError."""
    try:
        text = contained.read_text(folder / FILE)
    except FileNotFoundError:
        return None
    try:
        return Certificate.model_validate(parse_json(text, FILE))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        key = ".".join(map(str, first["loc"]))
        raise DamageError(f"{FILE}: {key}: {first['msg']}") from None


def scored_digest(checkpoints: Path) -> str | None:
    """SHA-256 of the newest checkpoint whose weights are scored, by the file beside it: the best
    one, or the last where none is the best. None if there is no checkpoint."""
    for kind in ("best", "step"):
        if found := sorted(checkpoints.glob(f"{kind}-*.pt.sha256")):
            return contained.read_text(found[-1], inside=2).partition(" ")[0]
    return None


def why_unfit(found: Certificate, folder: Path, summary: Summary) -> str | None:
    """What of the run is not what the certificate is for; None if it fits."""
    bound, corpus = found.bound_to, summary.corpus
    weights = scored_digest(folder / "checkpoints")
    if weights is not None and weights != bound.weights:
        return "other weights"
    with suppress(FileNotFoundError):
        tokenizer = contained.read_text(folder / "tokenizer" / "sha256.txt", inside=2)
        if tokenizer.strip() != bound.tokenizer:
            return "another tokenizer"
    if corpus is not None and (corpus.sha256, corpus.split) != (bound.corpus, bound.split):
        return "another text or split"
    if summary.final is not None and (summary.definition or 1) != bound.definition:
        return "another definition of the score"
    return "another score" if summary.final != bound.reported else None
