"""summary.json: what a run is, and its results."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import PydanticCustomError

from harness.common import contained
from harness.common.files import write_atomically
from harness.common.rows import strict_json
from harness.runs.damage import DamageError, is_finite, parse_json

FILE = "summary.json"
ALSO = "also"  # before the names of other texts, in rows, and what summary.json calls them
WITHOUT_COPIED = "without_copied"
SAMPLE = "sample of step"  # with the step: a part of the results, under `missing`
RESERVE, RESERVED = ".reserve", 1 << 14  # bytes: more than a summary needs
Status = Literal["running", "finished", "stopped", "failed", "non_finite"]
DEFINITION = 1  # version of what a score is; increase it when equal weights would get another one
STATUSES: tuple[str, ...] = get_args(Status)


def _finite(value: float) -> float:
    if not is_finite(value):
        raise PydanticCustomError("finite", "is not a finite number")
    return value


Number = Annotated[int | float, AfterValidator(_finite)]


def _figure(name: str) -> str:
    if not name.isidentifier() or len(name) > 60:
        raise PydanticCustomError("figure", "is not the name of a figure")
    return name


Figure = Annotated[str, AfterValidator(_figure)]


class Record(BaseModel):
    # Fields of newer versions are ignored; older versions lack some of these.
    model_config = ConfigDict(strict=True, extra="ignore")

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        """Without validation, for our own values: a loss may be NaN."""
        return cls.model_construct(**values)


class TextScore(Record):
    """The loss of the best weights over a text.

    bytes: of the scored text. stride: of the evaluation, in tokens; None: one streaming pass.
    bits_per_byte: None if the tokenizer is lossy. unknown: characters that the vocabulary lacks.
    own: the user's own figures.
    share: of the split, its beginning; None: all of it.
    documents: their number; text_nats_per_token: without their end markers. None for one text.
    accuracy: of the answers of a task; accuracy_error: its standard error over whole examples.
    sha256: of a further text, which is no split.
    """

    nats_per_token: Number | None = None
    bits_per_byte: Number | None = None
    perplexity: Number | None = None
    tokens: Number | None = None
    bytes: Number | None = None
    stride: Number | None = None
    unknown: Number | None = None
    own: Annotated[dict[Figure, Number | None], Field(max_length=32)] | None = None
    share: Number | None = None
    documents: Number | None = None
    text_nats_per_token: Number | None = None
    accuracy: Number | None = None
    accuracy_error: Number | None = None
    sha256: str | None = None


class Scored(TextScore):
    """That over a split. texts: of a mix, each by itself; the other figures are then of all their
    bytes together."""

    texts: Annotated[dict[str, TextScore], Field(max_length=64)] | None = None

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        found = super().of(values)
        if found.texts:
            found.texts = {name: TextScore.of(dict(text)) for name, text in found.texts.items()}
        return found


class TrainCost(Record):
    """The cost of training, totals over the run. seconds: without evaluation_seconds, those of
    scoring validation on the way. epochs: tokens, by those of the train split. beside: how many
    other jobs of its sweep ran at most on the same machine meanwhile; None for none."""

    steps: Number | None = None
    tokens: Number | None = None
    bytes: Number | None = None
    flops: Number | None = None
    seconds: Number | None = None
    evaluation_seconds: Number | None = None
    epochs: Number | None = None
    tokens_per_second: Number | None = None
    peak_memory_bytes: Number | None = None
    beside: Number | None = None


class Best(Record):
    """The evaluation with the lowest validation loss."""

    step: Number | None = None
    nats_per_token: Number | None = None
    bits_per_byte: Number | None = None


class ParameterCount(Record):
    """Shared parameters are counted once. active: without the experts that a token does not go
    through. state: how many numbers a model keeps that counts the
    train split in one pass, in place of taking steps; None for all others."""

    total: Number | None = None
    active: Number | None = None
    trainable: Number | None = None
    embedding: Number | None = None
    state: Number | None = None


class WithoutCopied(Record):
    """The test score (of validation, where there is no test split) of the tokens of which no byte
    lies in a passage of `passage` bytes or more that train has, too. copied: the bytes that do.
    searched: the bytes of train in which they were looked for. bytes: of the tokens that are left;
    with none there is no score."""

    passage: Number
    searched: Number
    copied: Number
    tokens: Number
    bytes: Number
    nats_per_token: Number | None = None
    bits_per_byte: Number | None = None


class Compressed(Record):
    """The test text by a compressor that knows the train text. window: how far back it looks, in
    bytes."""

    bits_per_byte: Number
    window: Number


class MixedText(Record):
    """A text of a mix. weight: the share of the rows of training. sha256: of all of it, and of its
    parts."""

    weight: Number
    sha256: str
    train: str
    val: str
    test: str


class CorpusIdentity(Record):
    """sha256: of the whole text. split: the shares of train, validation and test. rows: what rows
    of documents a training saw, `data.rows`. Of a text that was made from files: how many files
    and texts (records) were joined, how many of these are empty, bytes that were replaced, hidden
    files and linked folders that were passed over. chance: of a task, the accuracy of the best
    constant answer. mixed: of a mix, its texts by their names."""

    sha256: str | None = None
    split: list[Number] | None = None
    rows: str | None = None
    files: Number | None = None
    texts: Number | None = None
    empty: Number | None = None
    replaced: Number | None = None
    passed_over: Number | None = None
    chance: Number | None = None
    mixed: Annotated[dict[str, MixedText], Field(max_length=64)] | None = None

    @property
    def has_test(self) -> bool:
        return not self.split or self.split[-1] != 0


def _pair(texts: list[str]) -> list[str]:
    if len(texts) != 2:
        raise PydanticCustomError("pair", "is not a pair of texts")
    return texts


class Streamed(Record):
    """What a training read of a stream. shards: its files; bytes: in all of them, None if that is
    not known; sha256: of their names and sizes. passes: over them, the one under way among them.
    documents: that were encoded; held_out, empty: that were passed over. unknown: characters that
    were left out. replaced: bytes that are not UTF-8."""

    shards: Number
    bytes: Number | None
    sha256: str
    passes: Number
    documents: Number
    held_out: Number
    empty: Number
    unknown: Number
    replaced: Number


class Ancestor(Record):
    """A run that another one is a fork of, directly or not. run: its folder then. step, checkpoint:
    where the fork began, and the SHA-256 of that file. configuration: SHA-256 of its settings, but
    for those that do not distinguish configurations."""

    run: str
    step: Number
    checkpoint: str | None = None
    configuration: str | None = None


class LostText(Record):
    """What a lossy tokenizer changes: `changed` of `characters`; examples as (before, after)."""

    characters: Number
    changed: Number
    examples: list[Annotated[list[str], AfterValidator(_pair)]] = []


class Summary(Record):
    """Fields that were not set are not written. missing: parts of the results that a finished or
    failed run lacks, each with the reason. leaks: the tokenizer may have been learnt from the
    validation or test text. causal: no score depends on later tokens, as far as the certificate
    says; None before there is one. certificate: its outcome in words. definition: of the test
    score; None in the first runs, whose definition is 1. also: other texts by the best weights
    (`eval.also`), by their names. compressors: of the text, in the run of a model that counts.
    stream: of a corpus that is read while it is trained on.
    cache_bytes: of a task, what decoding keeps of one example of training. lineage: of a fork,
    oldest first. extended: the steps at which it went on under another budget, if the rates up to
    there are not those of a training of the new one. candidate: of a search, or a sweep over
    variants of a model; validation chooses among them, so no command shows `test` unasked."""

    status: Status
    data: str | None = None
    tokenizer: str | None = None
    model: str | None = None
    seed: Number | None = None
    corpus: CorpusIdentity | None = None
    lossless: bool | None = None
    lost: LostText | None = None
    leaks: bool | None = None
    causal: bool | None = None
    certificate: str | None = None
    definition: Number | None = None
    vocab_size: Number | None = None
    receptive_field: Number | None = None
    parameters: ParameterCount | None = None
    flops_per_token: Number | None = None
    cache_bytes: Number | None = None
    train: TrainCost | None = None
    stream: Streamed | None = None
    val: Scored | None = None
    test: Scored | None = None
    also: dict[str, Scored] | None = None
    without_copied: WithoutCopied | None = None
    best: Best | None = None
    compressors: dict[str, Compressed] | None = None
    candidate: bool | None = None
    lineage: list[Ancestor] | None = None
    extended: list[Number] | None = None
    machine: dict[str, Any] | None = None
    versions: dict[str, Any] | None = None
    git: dict[str, Any] | None = None
    skipped_steps: Number | None = None
    loss_spikes: Number | None = None
    error: str | None = None
    missing: dict[str, str] | None = None

    @property
    def final(self) -> Scored | None:
        """The score that is certified and ranked: test, or validation where there is no test
        split."""
        no_test = self.corpus is not None and not self.corpus.has_test
        return self.val if no_test else self.test

    def plain(self) -> dict[str, Any]:
        """The fields that were set, as plain values."""
        return self.model_dump(exclude_unset=True)

    def shown(self) -> dict[str, Any]:
        """What loggers may show of it: of a candidate not the test score."""
        hidden = dict.fromkeys(("test", "without_copied"))
        return self.plain() | (hidden if self.candidate else {})

    def to_be_made(self) -> list[str]:
        """Of what is missing, what a resume makes. The weights of an earlier step's sample are
        gone, and a run that finished without a test score had no finite validation score."""
        last = f"{SAMPLE} {self.train.steps if self.train else None}"
        return [
            part
            for part in self.missing or {}
            if not (part.startswith(SAMPLE) and part != last)
            and not (part == "test" and self.status == "finished")
        ]

    def write(self, folder: Path) -> None:
        """Raises RunFailure if it can't be written.

        While the run is under way it keeps some room on the disk, so that how it ended can be
        written on one that is full by then.
        """
        reserve = folder / RESERVE
        if self.status != "running":
            with suppress(OSError):
                reserve.unlink(missing_ok=True)
        elif not reserve.exists():
            write_atomically(reserve, os.urandom(RESERVED))  # which no file system compresses
        write_atomically(folder / FILE, f"{strict_json(self.plain(), indent=2)}\n".encode())


def read_summary(folder: Path) -> Summary:
    """Raises DamageError for what no run writes, and OSError if there is no file."""
    plain = parse_json(contained.read_text(folder / FILE), FILE)
    if plain.get("status") not in STATUSES:
        raise DamageError(f"{FILE} has no known status ({plain.get('status')!r:.40})")
    try:
        return Summary.model_validate(plain)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        key = ".".join(str(part) for part in first["loc"] if part not in ("int", "float"))
        raise DamageError(f"{FILE}: {key}: {first['msg']}") from None


def texts_of(folder: Path) -> list[str | None]:
    """The digests of the run's text, and of those of a mix, as far as its summary says."""
    try:
        corpus = read_summary(folder).corpus or CorpusIdentity()
    except (OSError, DamageError):
        return []
    return [corpus.sha256, *(text.sha256 for text in (corpus.mixed or {}).values())]


def status_of(folder: Path) -> str | None:
    """The run's status; None if the summary can't be read."""
    try:
        return read_summary(folder).status
    except (OSError, DamageError):
        return None
