"""Text to batches: a corpus is split by bytes, each part is encoded by itself, and a batch is a
pure function of (seed, step)."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import shutil
import sys
import tempfile
from abc import ABC, abstractmethod
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from harness.assets import Assets, digest_of, placed
from harness.errors import UsageError
from zoo_tokenizers import Tokenizer, TokenizerError

PARTS = ("train", "val", "test")
UNICODE_SCALARS = 0x110000 - 0x800  # all code points but the surrogates


class Corpus(ABC):
    """Where text comes from. split: the shares of train, validation and test, by bytes."""

    stand_in: str | None = None
    """The name of the corpus that had to take this one's place, once read."""

    def __init__(self, split: list[float]) -> None:
        if len(split) != 3 or min(split) < 0 or not math.isclose(sum(split), 1.0, abs_tol=1e-9):
            raise ValueError(f"split={split} must be three shares that add up to 1")
        self.split = split

    @abstractmethod
    def read(self, assets: Assets) -> bytes:
        """The whole text, as the bytes of its file. Raises UsageError if it can't be had."""


class Download(Corpus):
    """A file of known digest; `fallback: python_docs` stands in, loudly, when it can't be had."""

    def __init__(
        self, file: str, url: str, sha256: str, split: list[float], fallback: str | None = None
    ) -> None:
        super().__init__(split)
        if fallback not in (None, "python_docs"):
            raise ValueError(f"fallback={fallback} must be python_docs or null")
        self.file, self.url, self.sha256, self.fallback = file, url, sha256, fallback

    def read(self, assets: Assets) -> bytes:
        try:
            return assets.find(self.file, self.url, self.sha256).read_bytes()
        except UsageError as error:
            if self.fallback is None:
                raise
            line = "!" * 88
            print(
                f"{line}\n{error}\nTRAINING ON THE PYTHON DOCUMENTATION INSTEAD: these numbers do "
                f"not compare with any of {self.file}\n{line}",
                file=sys.stderr,
            )
            self.stand_in = self.fallback
            return PythonDocs(self.split).read(assets)


class TextFile(Corpus):
    """Any file; its bytes are taken as they are."""

    def __init__(self, path: str, split: list[float]) -> None:
        super().__init__(split)
        self.path = Path(path).expanduser()

    def read(self, assets: Assets) -> bytes:
        try:
            return self.path.read_bytes()
        except OSError as error:
            raise UsageError(f"data.path={self.path} can't be read: {error.strerror}") from error


class PythonDocs(Corpus):
    """The reference text that ships with every CPython (`pydoc_data.topics`)."""

    def read(self, assets: Assets) -> bytes:
        from pydoc_data.topics import topics

        return "\n\n".join(topics[name] for name in sorted(topics)).encode()


@dataclass(frozen=True)
class Split:
    """One encoded part of a corpus.

    bytes: of its whole text. unknown: the characters that the vocabulary lacks, and how often they
    occur; they are not among the ids.
    """

    ids: NDArray[np.unsignedinteger]
    bytes: int
    unknown: dict[str, int]

    @property
    def unknown_nats(self) -> float:
        """What it costs to send the unknown characters beside the ids, so that the metric still
        covers every byte: for each its place in the text and its code point, both uniform."""
        count = sum(self.unknown.values())
        return count * (math.log(len(self.ids) + count) + math.log(UNICODE_SCALARS))


@dataclass(frozen=True)
class Dataset:
    """The three parts, the tokenizer that encoded them, and the digest of the text they are of.

    A part whose share is 0 is None; train never is.
    """

    train: Split
    val: Split | None
    test: Split | None
    tokenizer: Tokenizer
    digest: str


def prepare(corpus: Corpus, tokenizer: Tokenizer, assets: Assets) -> Dataset:
    """Read, split, learn the tokenizer from train alone, and encode; or map what the cache holds.

    Raises UsageError for text that the tokenizer can't take.
    """
    content = corpus.read(assets)
    texts = [decode_text(part) for part in split_bytes(content, corpus.split)]
    if not texts[0]:
        raise UsageError(f"the train split is empty: the corpus has {len(content)} bytes")
    try:
        tokenizer.fit(texts[0])
        key = hashlib.sha256(f"{[*map(_sha, texts)]} {tokenizer.digest}".encode()).hexdigest()
        folder = assets.cache / "encoded" / key
        parts = _read_cache(folder)
        if parts is None:
            _write_cache(folder, texts, tokenizer)
            parts = _read_cache(folder)
    except TokenizerError as error:
        raise UsageError(f"data: {error}") from error
    if parts is None:
        raise UsageError(f"the cache in {folder} is damaged and can't be replaced; remove it")
    present = [part if share else None for part, share in zip(parts, corpus.split, strict=True)]
    return Dataset(parts[0], present[1], present[2], tokenizer, hashlib.sha256(content).hexdigest())


def split_bytes(content: bytes, shares: list[float]) -> list[bytes]:
    """Cut by bytes at the cumulated shares, each cut moved to the nearest start of a character."""
    cuts = [0]
    for share in (shares[0], shares[0] + shares[1]):
        # Rounded first: 0.8 + 0.1 is a hair below 0.9 in floating point, a whole byte in the cut.
        cuts.append(max(cuts[-1], _character_start(content, int(round(share * len(content), 6)))))
    cuts.append(len(content))
    return [content[start:end] for start, end in itertools.pairwise(cuts)]


def _character_start(content: bytes, cut: int) -> int:
    for distance in range(4):  # a UTF-8 character has at most 3 continuation bytes
        for candidate in (cut - distance, cut + distance):
            if 0 <= candidate <= len(content) and not _continues(content, candidate):
                return candidate
    return cut  # not UTF-8 hereabouts: any place is as good


def _continues(content: bytes, index: int) -> bool:
    return index < len(content) and content[index] & 0xC0 == 0x80


def decode_text(content: bytes) -> str:
    """As text in which bytes that are not UTF-8 survive as lone surrogates."""
    return content.decode("utf-8", "surrogateescape")


def require_length(dataset: Dataset, seq_len: int) -> None:
    """Raises UsageError, naming both lengths, if a part is too short for one sequence."""
    for name in PARTS:
        part = getattr(dataset, name)
        if part is not None and len(part.ids) <= seq_len:
            raise UsageError(
                f"the {name} split has {len(part.ids)} tokens, which is too short for sequences of "
                f"train.seq_len={seq_len} and a target; lower train.seq_len or change data.split"
            )


def draw_batch(
    ids: NDArray[np.unsignedinteger], seed: int, step: int, rows: int, seq_len: int
) -> tuple[Tensor, Tensor]:
    """The batch of one optimizer step: inputs and targets, int64 (rows, seq_len) each.

    Rows start anywhere in the split with equal probability. The generator is counter-based
    (Salmon et al. 2011, Philox), keyed by (seed, step): any step's batch without the ones before.
    """
    generator = np.random.Generator(np.random.Philox(key=[seed, step]))
    starts = generator.integers(0, len(ids) - seq_len, size=(rows, 1))
    window = torch.from_numpy(ids[starts + np.arange(seq_len + 1)].astype(np.int64))
    return window[:, :-1], window[:, 1:]


def _sha(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def _write_cache(folder: Path, texts: list[str], tokenizer: Tokenizer) -> None:
    """Encode into a temporary folder and move it into place: with two processes, one wins, and
    both find the same."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".encoding-"))
    try:
        meta = {}
        for name, text in zip(PARTS, texts, strict=True):
            ids, unknown = (
                tokenizer.encode_known(text) if text else (np.empty(0, np.uint8), Counter())
            )
            path = temporary / f"{name}.npy"
            with placed(path) as file:
                np.save(file, ids)
            size = len(text.encode("utf-8", "surrogateescape"))
            meta[name] = {"bytes": size, "unknown": unknown, "sha256": digest_of(path)}
        with placed(temporary / "meta.json") as file:
            file.write(json.dumps(meta).encode())
        if folder.exists() and _read_cache(folder) is None:
            shutil.rmtree(folder)  # damaged
        if not folder.exists():
            temporary.rename(folder)
    except OSError:
        if not folder.exists():  # else another process was faster
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _read_cache(folder: Path) -> list[Split] | None:
    """The three parts, memory-mapped, or None if they are not there whole."""
    try:
        meta = json.loads((folder / "meta.json").read_text())
        parts = []
        for name in PARTS:
            path = folder / f"{name}.npy"
            if digest_of(path) != meta[name]["sha256"]:
                return None
            ids = np.load(path, mmap_mode="r", allow_pickle=False)
            parts.append(Split(ids, meta[name]["bytes"], meta[name]["unknown"]))
    except (OSError, ValueError, KeyError):
        return None
    return parts
