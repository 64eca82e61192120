"""Texts beside a corpus, each encoded by itself with the tokenizer of a run."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from harness.common.errors import UsageError
from harness.common.outside import open_regular
from harness.common.paths import expand
from harness.data.assets import Assets
from harness.data.corpus import Corpus, Span, Text
from harness.data.dataset import Dataset, lossy_note, require_whole, unknown_note
from harness.data.documents import Lines
from harness.data.encoded import PARTS, RoundTripLoss, Split, encode_parts
from zoo_tokenizers import Tokenizer, TokenizerError


@dataclass(frozen=True)
class LoneText:
    """A text with its ids. span: of `text`, all of it or one part. lost: what a lossy tokenizer
    loses; None if it is lossless."""

    split: Split
    text: Text
    span: Span
    lost: RoundTripLoss | None = None

    @classmethod
    def part_of(cls, dataset: Dataset, name: str) -> LoneText:
        """The split of this name."""
        return cls(getattr(dataset, name), dataset.text, dataset.parts[PARTS.index(name)])

    def notes(self, name: str, own: Collection[str | None]) -> list[str]:
        """What a reader of its score must know, one sentence each. own: the digests of the texts
        that the model was trained on."""
        notes = [lossy_note(self.lost)] if self.lost else []
        if self.split.unknown:
            notes.append(unknown_note(name, self.split))
        if self.span.sha256 in own:
            notes.append(f"{name} is the text that this run was trained on, its test split too")
        return notes


def encode_further(
    corpus: Corpus, tokenizer: Tokenizer, assets: Assets, seq_len: int
) -> dict[str, LoneText]:
    """The examples of other lengths that a task has. Raises UsageError for longer ones than a model
    is asked to read."""
    found = {}
    for name, text in corpus.further().items():
        found[name] = _encoded(text, f"data.longer: {name}", tokenizer, assets)
        require_whole(found[name].split, "data.longer", seq_len)
    return found


def encode_alone(
    files: Mapping[str, str], key: str, tokenizer: Tokenizer, assets: Assets
) -> dict[str, LoneText]:
    """Each text by its name, encoded and kept in the cache: the bytes of the file as they are; of a
    tokenizer with an end marker each of its lines as a document. key: what begins a message.

    Raises UsageError for a file that can't be read or encoded, and for one with fewer than two
    tokens: nothing predicts the first.
    """
    return {
        name: _encode(expand(file), f"{key}{name}=", tokenizer, assets)
        for name, file in files.items()
    }


def _encode(path: Path, key: str, tokenizer: Tokenizer, assets: Assets) -> LoneText:
    open_regular(path, key).close()
    is_one = tokenizer.marker is None
    text = Text(path) if is_one else Lines(str(path), [1.0, 0.0, 0.0]).read(assets)
    return _encoded(text, f"{key}{path}", tokenizer, assets)


def _encoded(text: Text, where: str, tokenizer: Tokenizer, assets: Assets) -> LoneText:
    """where: begins a message."""
    end = text.size
    whole, parts = text.spans([(0, end), (end, end), (end, end)])
    try:
        (split, *_), lost = encode_parts(text, whole, parts, tokenizer, assets.cache)
    except TokenizerError as error:
        raise UsageError(f"{where}: {error}") from error
    if len(split.ids) < 2:
        raise UsageError(
            f"{where} has nothing to score: {end:,} bytes are {len(split.ids)} tokens, and "
            "nothing predicts the first"
        )
    return LoneText(split, text, whole, lost)
