"""A corpus, split by bytes and encoded part by part."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.common.errors import UsageError
from harness.data.assets import Assets
from harness.data.corpus import Corpus, Text, split_points
from harness.data.encoded import PARTS, Lost, Split, encode_parts, learn
from zoo_tokenizers import Tokenizer, TokenizerError

COUNTED = 1 << 22  # ids counted at a time


@dataclass(frozen=True)
class Dataset:
    """The three parts, the tokenizer that encoded them, and the digest of the text they are of.

    A part whose share is 0 is None; train never is. text: what was encoded, from its start. lost:
    what a lossy tokenizer loses; None for one that loses nothing. name: of the text that was read,
    where the configuration leaves it open.
    """

    train: Split
    val: Split | None
    test: Split | None
    tokenizer: Tokenizer
    digest: str
    text: Text
    lost: Lost | None = None
    name: str | None = None

    def counts(self) -> NDArray[np.int64]:
        """(V,): how often each id occurs in the train split. An id at 0 was never learnt from: what
        never to sample, if such ids are to be left out."""
        vocab_size, ids = self.tokenizer.vocab_size, self.train.ids
        counts = np.zeros(vocab_size, dtype=np.int64)
        for start in range(0, len(ids), COUNTED):
            counts += np.bincount(ids[start : start + COUNTED], minlength=vocab_size)
        return counts

    def notes(self) -> list[str]:
        """What a reader of the numbers must know of the data, a sentence each."""
        notes = self.tokenizer.notes()
        if self.lost is not None:
            before, after = self.lost.examples[0] if self.lost.examples else ("", "")
            notes.append(
                f"the tokenizer is lossy: of {self.lost.characters} characters it does not give "
                f"back {self.lost.changed} ({before!r} → {after!r}); no bits per byte"
            )
        for name in PARTS[1:]:
            part = getattr(self, name)
            if part is not None and part.unknown:
                shown = ", ".join(map(repr, list(part.unknown)[:5]))
                notes.append(
                    f"the {name} split has {sum(part.unknown.values())} characters that train "
                    f"never showed ({shown}{', …' if len(part.unknown) > 5 else ''}); they are "
                    "paid for in bits per byte, but the model does not see them"
                )
        return notes


def prepare(
    corpus: Corpus, tokenizer: Tokenizer, assets: Assets, trained: str | None = None
) -> Dataset:
    """Give the tokenizer its vocabulary, fetched or learnt from train alone, and encode each part;
    or map what the cache holds.

    trained: the digest of the text that a finished run was trained on; its tokenizer, which has its
    vocabulary already, comes with it.
    Raises UsageError for a text or a vocabulary that can't be had, for text that the tokenizer
    can't take, and for another text than the run's.
    """
    try:
        if trained is None:
            tokenizer.fetch(assets)
        text = corpus.read(assets)
        digest = text.digest(0, text.size)
        # Before anything is written: a run's folder may name any file.
        if trained not in (None, digest):
            raise UsageError(
                "data: the text is not the one this run was trained on "
                f"(SHA-256 {digest}, the run's {trained})"
            )
        parts = split_points(text, corpus.split)
        if parts[0][1] == 0:
            raise UsageError(f"the train split is empty: the corpus has {text.size} bytes")
        if trained is None:
            learn(tokenizer, text, parts[0], assets.cache)
        splits, lost = encode_parts(text, parts, digest, tokenizer, assets.cache)
    except TokenizerError as error:
        raise UsageError(f"data: {error}") from error
    present = [split if share else None for split, share in zip(splits, corpus.split, strict=True)]
    name = corpus.found
    return Dataset(splits[0], present[1], present[2], tokenizer, digest, text, lost, name)


def require_length(dataset: Dataset, seq_len: int) -> None:
    """Raises UsageError, naming both lengths, if a part is too short for one sequence."""
    for name in PARTS:
        part = getattr(dataset, name)
        if part is not None and len(part.ids) <= seq_len:
            raise UsageError(
                f"the {name} split has {len(part.ids)} tokens, which is too short for sequences of "
                f"train.seq_len={seq_len} and a target; lower train.seq_len or change data.split"
            )
