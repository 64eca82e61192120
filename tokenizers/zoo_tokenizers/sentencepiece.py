"""SentencePiece (Kudo & Richardson 2018, arXiv 1808.06226), with settings like Llama 2's.

Kept lossless: no space is added or removed, a line break is a token, and unknown characters are
encoded in bytes. SentencePiece replaces a space by U+2581, so a U+2581 in the text is encoded in
bytes too.
"""

from __future__ import annotations

import io
import itertools
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

import numpy as np
import sentencepiece

from zoo_tokenizers.text import STRAY_BYTES, encode_with_bytes, is_unicode
from zoo_tokenizers.tokenizer import Ids, Tokenizer, TokenizerError, smallest_unsigned

_SPACE = "\u2581"
_IN_BYTES = _SPACE + STRAY_BYTES
_UNKNOWN = "\u2585"  # the trainer skips lines with its own mark for unknown characters
_LINE = 1000
# The unit of encoding and learning: a line, or at least 1,000 characters of a longer line, up to a
# space that follows a non-space. No piece spans such a position, so the ids are those of the whole.
# (A unigram model is even more exact on units: it adds scores in single precision.)
_UNIT = re.compile(rf"[^\n]{{0,{_LINE}}}\n|[^\n]{{{_LINE - 1},}}?[^\n ](?= )|[^\n]+")
_AFTER_LAST = re.compile(rf".*[\n{_IN_BYTES}]", re.DOTALL)

_FIXED: dict[str, Any] = {
    "max_sentencepiece_length": 27,
    "normalization_rule_name": "identity",
    "byte_fallback": True,
    "split_digits": True,
    "split_by_unicode_script": True,
    "split_by_whitespace": True,
    "add_dummy_prefix": False,
    "remove_extra_whitespaces": False,
    "allow_whitespace_only_pieces": True,
    "user_defined_symbols": ["\n"],
    "hard_vocab_limit": False,
    "input_sentence_size": 2_000_000,
    "shuffle_input_sentence": False,  # takes the first 2 million: random sampling is not repeatable
    "max_sentence_length": 4192,
    "seed_sentencepiece_size": 1_000_000,
    "unk_id": 0,
    "bos_id": 1,
    "eos_id": 2,
    "pad_id": -1,
    "num_threads": 1,  # changes the bytes of the model file
}


class SentencePiece(Tokenizer):
    """vocab_size: the most pieces; fewer if the text does not support as many.

    whole_file: learn from validation and test too, as the study notes did. The scores are then
    optimistic, and the run says so.
    """

    def __init__(
        self,
        model_type: Literal["bpe", "unigram"] = "bpe",
        vocab_size: int = 32000,
        character_coverage: float = 0.999995,
        whole_file: bool = False,
    ) -> None:
        if not 1 <= vocab_size <= 2**20:
            raise ValueError(f"vocab_size={vocab_size} must lie between 1 and 1048576")
        if not 0 < character_coverage <= 1:
            raise ValueError(f"character_coverage={character_coverage} must be above 0, at most 1")
        self.leaks = whole_file
        self._wanted = vocab_size
        self._settings = _FIXED | {
            "model_type": model_type,
            "vocab_size": vocab_size,
            "character_coverage": character_coverage,
        }
        self.recipe = f"sentencepiece {sentencepiece.__version__} {json.dumps(self._settings)}"
        self._model = b""

    def fit(self, train: Iterable[str]) -> None:
        model = io.BytesIO()
        try:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=(
                    sentence for text in self.rechunk(train) for sentence in _sentences(text)
                ),
                model_writer=model,
                minloglevel=2,
                **self._settings,
            )
        except RuntimeError as error:
            reason = " ".join(str(error).rpartition("]")[2].split()) or str(error)
            if re.search(r"sentences_\.empty|all_chars_count", str(error)):
                reason = "to it line breaks and NUL are nothing; take tokenizer=bytes or char"
            raise TokenizerError(f"sentencepiece can't learn from this text: {reason}") from error
        self.restore({"sentencepiece.model": model.getvalue()})

    def files(self) -> dict[str, bytes]:
        return {"sentencepiece.model": self._model}

    def restore(self, files: Mapping[str, bytes]) -> None:
        self._model = files["sentencepiece.model"]
        try:
            processor = sentencepiece.SentencePieceProcessor(model_proto=self._model)
        except RuntimeError as error:
            raise TokenizerError(f"it is not a model of sentencepiece: {error}") from error
        self._processor = processor
        size = processor.vocab_size()
        self.pieces = [_piece(processor, id_) for id_ in range(size)]
        self._dtype = smallest_unsigned(size)
        spelt = [processor.piece_to_id(f"<0x{byte:02X}>") for byte in range(256)]
        self._byte_ids = np.array(spelt, self._dtype)

    def encode(self, text: str) -> Ids:
        if _SPACE not in text and is_unicode(text):
            return self._encode(text)
        return encode_with_bytes(text, self._encode, self._byte_ids, _IN_BYTES)

    def _encode(self, text: str) -> Ids:
        rows = self._processor.encode([unit[0] for unit in _UNIT.finditer(text)], num_threads=1)
        return np.fromiter(itertools.chain.from_iterable(rows), dtype=self._dtype)

    def last_safe_cut(self, text: str) -> int:
        if last := _AFTER_LAST.match(text):
            return last.end()
        return max((unit.start() for unit in _UNIT.finditer(text)), default=0)

    def notes(self) -> list[str]:
        notes = []
        if self.vocab_size < self._wanted:
            notes.append(
                f"the vocabulary has {self.vocab_size} pieces: the text does not support "
                f"tokenizer.vocab_size={self._wanted}"
            )
        if self.leaks:
            notes.append(
                "the vocabulary is learnt from the whole file, validation and test included "
                "(tokenizer.whole_file): the scores leak"
            )
        return notes


def _sentences(text: str) -> Iterator[str]:
    """Units without line breaks and without what sentencepiece can't read."""
    for run in re.split(f"[\n{_IN_BYTES}{_UNKNOWN}]", text):
        for unit in (match[0] for match in _UNIT.finditer(run)):
            # The trainer skips longer units: cut them anywhere.
            whole = len(unit.encode()) <= _FIXED["max_sentence_length"]
            length = len(unit) if whole else _LINE
            yield from (unit[start : start + length] for start in range(0, len(unit), length))


def _piece(processor: sentencepiece.SentencePieceProcessor, id_: int) -> bytes:
    written = processor.id_to_piece(id_)
    if processor.is_byte(id_):
        return bytes([int(written[3:5], 16)])  # <0x0A>
    return written.replace(_SPACE, " ").encode()
