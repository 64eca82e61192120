"""A corpus, split before tokenization, each part encoded by itself."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from harness.common.errors import UsageError
from harness.config.build import resolve_class
from harness.config.settings import Settings
from harness.data.assets import Assets
from harness.data.corpus import Corpus, Span, Task, Text, split_points
from harness.data.encoded import PARTS, Documents, RoundTripLoss, Split, encode_parts, fit_tokenizer
from harness.data.shards import Shards
from zoo_tokenizers import EndMarker, Tokenizer, TokenizerError

IDS_PER_COUNT = 1 << 22  # ids counted at a time


@dataclass(frozen=True)
class Dataset:
    """The encoded parts of a corpus and their tokenizer.

    val and test are None if their share is 0. digest: of the whole text. parts: of the text, as
    many as there are splits. lost: what a lossy tokenizer loses; None if it is lossless. name: as
    `Corpus.found`. rows: as `Corpus.rows`. weights: of a mix, the share of the rows of training
    that each of its texts gives; None for one text.
    """

    train: Split
    val: Split | None
    test: Split | None
    tokenizer: Tokenizer
    digest: str
    text: Text
    parts: Sequence[Span]
    lost: RoundTripLoss | None = None
    name: str | None = None
    rows: str | None = None
    weights: Mapping[str, float] | None = None

    @cached_property
    def row_documents(self) -> Documents | None:
        """The documents that are rows of training, or the texts of a mix that rows are drawn from;
        None where rows are cut anywhere."""
        if self.weights is not None:
            sizes = [len(text.ids) for text in self.train.texts.values()]
            return Documents(np.cumsum([0, *sizes]), weights=np.array([*self.weights.values()]))
        return self.train.documents if self.rows == "alone" else None

    @property
    def task(self) -> Task | None:
        """What draws the rows of training, if they are not of a text."""
        return self.text.task

    @property
    def shards(self) -> Shards | None:
        """What training reads in place of train, which is only their beginning; None: train."""
        return self.text.shards

    def held_out(self) -> frozenset[bytes]:
        """The SHA-256 of each document of validation and test."""
        return frozenset(
            hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()
            for part in self.parts[1:]
            for text in self.text.strings(part.start, part.stop)
        )

    @property
    def final(self) -> Split | None:
        """What the ranked score is of: test, or validation where the text has no test split."""
        return self.val if self.test is None else self.test

    def with_part_of_validation(self, share: float) -> Dataset:
        """eval.part: the first of validation alone. Raises UsageError as `Split.beginning`."""
        val = self.val and self.val.beginning(share, self.tokenizer.token_bytes)
        return replace(self, val=val)

    def counts(self) -> NDArray[np.int64]:
        """(V,): how often each id occurs in the train split."""
        vocab_size, ids = self.tokenizer.vocab_size, self.train.ids
        counts = np.zeros(vocab_size, dtype=np.int64)
        for start in range(0, len(ids), IDS_PER_COUNT):
            counts += np.bincount(ids[start : start + IDS_PER_COUNT], minlength=vocab_size)
        return counts

    def notes(self) -> list[str]:
        """What a reader of the scores must know about the data, one sentence each."""
        notes = [*self.tokenizer.notes(), *self.text.notes()]
        if self.shards is not None:
            notes += self.shards.notes()
        if self.weights is not None:
            rows = ", ".join(f"{name} {100 * own:.3g} %" for name, own in self.weights.items())
            notes.append(
                f"a mix: rows of training by data.weights ({rows}); its score is that of all its "
                "bytes together, whatever the weights, and each text's stands beside it"
            )
        if self.lost is not None:
            notes.append(lossy_note(self.lost))
        if self.val is not None and self.val.share < 1:
            notes.append(
                f"validation is its first {100 * self.val.share:.3g} % alone (eval.part), "
                f"{len(self.val.ids):,} tokens: such a run is not ranked"
            )
        for name in PARTS[1:]:
            part = getattr(self, name)
            if part is not None and part.unknown:
                notes.append(unknown_note(f"the {name} split", part))
        return notes


def lossy_note(lost: RoundTripLoss) -> str:
    """What a lossy tokenizer does to a text."""
    before, after = lost.examples[0] if lost.examples else ("", "")
    return (
        f"the tokenizer is lossy: it changes {lost.changed} of {lost.characters} characters "
        f"({before!r} → {after!r}); no bits per byte"
    )


def unknown_note(name: str, part: Split) -> str:
    """How many characters of a part the vocabulary lacks. name: of the part."""
    shown = ", ".join(map(repr, list(part.unknown)[:5]))
    return (
        f"{name} has {sum(part.unknown.values())} characters that are not in train "
        f"({shown}{', …' if len(part.unknown) > 5 else ''}); bits per byte include their cost, but "
        "the model does not see them"
    )


def build_tokenizer(settings: Settings) -> Tokenizer:
    """The tokenizer of the settings; with an end marker if their corpus is of documents.

    Raises UsageError for one of text where the corpus has ids, and the other way round.
    """
    corpus, names = settings.build("data", Corpus), settings.names
    cls = resolve_class(settings.tokenizer["_target_"], Tokenizer, "tokenizer", settings.trust)
    if cls.of_ids != (corpus.words is not None):
        raise UsageError(
            f"data={names.data} has ids of its own: choose tokenizer=ids, not {names.tokenizer}"
            if corpus.words is not None
            else f"tokenizer={names.tokenizer} is for data that are ids: choose another one"
        )
    given = {} if corpus.words is None else {"words": corpus.words}
    tokenizer = settings.build("tokenizer", Tokenizer, **given)
    return EndMarker(tokenizer) if corpus.of_documents else tokenizer


def prepare(
    corpus: Corpus,
    tokenizer: Tokenizer,
    assets: Assets,
    trained: str | None = None,
    is_ready: bool = False,
) -> Dataset:
    """Fetch the tokenizer's vocabulary or learn it from train, and encode each part, unless the
    cache has the result.

    trained: for a finished run the digest of its text; its tokenizer has a vocabulary already.
    is_ready: that of a run that is resumed has one, too.
    Raises UsageError if text or vocabulary are not available, if the tokenizer can't encode the
    text, and if the text is not that of the run.
    """
    is_ready = is_ready or trained is not None
    try:
        if not is_ready:
            tokenizer.fetch(assets)
        text = corpus.read(assets)
        whole, parts = text.spans(split_points(text, corpus.split))
        # Checked before anything is written: a run's folder may name any file.
        if trained not in (None, whole.sha256):
            raise UsageError(
                "data: the text is not the one this run was trained on "
                f"(SHA-256 {whole.sha256}, the run's {trained})"
            )
        if parts[0].stop == 0:
            size = f"{text.size} byte{'s' * (text.size != 1)}"
            typed = corpus.path if isinstance(corpus.path, list | tuple) else [corpus.path]
            named = f" ({', '.join(map(str, typed))})" if typed else ""
            raise UsageError(f"the train split is empty: the corpus has {size}{named}")
        if not is_ready:
            learnt_from = whole if tokenizer.leaks else parts[0]
            fit_tokenizer(tokenizer, text, learnt_from, assets.cache)
        if text.shards is not None:
            text.shards.require(tokenizer)
        splits, lost = encode_parts(text, whole, parts, tokenizer, assets.cache)
    except TokenizerError as error:
        raise UsageError(f"data: {error}") from error
    present = [split if share else None for split, share in zip(splits, corpus.split, strict=True)]
    name, weights = corpus.found, corpus.weights
    if corpus.texts and weights is None:
        weights = {each: len(own.ids) / len(splits[0].ids) for each, own in splits[0].texts.items()}
    return Dataset(
        splits[0], present[1], present[2], tokenizer, whole.sha256, text, parts, lost, name,
        corpus.rows, weights,
    )  # fmt: skip


def require_whole(examples: Split, key: str, seq_len: int) -> None:
    """Raises UsageError if examples are longer than what a model is asked to read, or if none asks
    for anything."""
    assert examples.documents is not None, "of a task"
    if not np.any(examples.documents.scored):
        raise UsageError(f"{key}: no example of a split asks for anything: raise data.examples")
    if (length := int(examples.documents.lengths.max(initial=0))) > seq_len:
        raise UsageError(f"{key} has examples of {length} tokens: raise train.seq_len={seq_len}")


def require_whole_validation(dataset: Dataset) -> None:
    """For what chooses or judges by it. Raises UsageError if there is none, or only a part."""
    if dataset.val is None:
        raise UsageError("validation decides, and data.split leaves none")
    if dataset.val.share < 1:
        raise UsageError(
            f"validation decides, and eval.part={dataset.val.share:g} leaves a part of it; take "
            "eval.part=1"
        )


def require_length(dataset: Dataset, seq_len: int) -> None:
    """Raises UsageError if a part is too short for one sequence, or has no document."""
    for name in PARTS:
        part = getattr(dataset, name)
        if part is not None and part.documents is not None and not len(part.documents):
            raise UsageError(f"the {name} split has no documents; change data.split")
        if part is not None and part.documents is not None and part.documents.task is not None:
            require_whole(part, "data.length", seq_len)
        of_any_length = dataset.rows == "alone" or (dataset.rows and part is not dataset.train)
        for text, own in (part.alone if part is not None and not of_any_length else {}).items():
            if len(own.ids) > seq_len:
                continue
            where = f"the {name} split" + (f" of data.texts.{text}" if text else "")
            raise UsageError(
                f"{where} has {len(own.ids)} tokens of {own.bytes:,} bytes, which is too short for "
                f"sequences of train.seq_len={seq_len} and a target; lower train.seq_len, change "
                "data.split, or take a tokenizer of shorter tokens (bytes)"
            )
