"""Tokenizers of Hugging Face's library: pretrained ones by name or folder, and one learnt here.

A tokenizer is one file, tokenizer.json, which is also what transformers' AutoTokenizer makes its
fast tokenizers from.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
from numpy.typing import NDArray
from tokenizers import models, pre_tokenizers, trainers

from zoo_tokenizers.text import (
    STRAY_BYTES,
    encode_apart,
    is_unicode,
    last_word_start,
    require_unicode,
)
from zoo_tokenizers.tokenizer import Ids, Tokenizer, TokenizerError, Vocabularies, smallest_unsigned

_FILE = "tokenizer.json"
_CONVERT = """
import sys
from transformers import AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1], local_files_only=True)
if not tokenizer.is_fast:
    sys.exit("it has no fast version")
sys.stdout.buffer.write(tokenizer.backend_tokenizer.to_str().encode())
"""


class _FromJson(Tokenizer):
    """What a tokenizer.json describes. Text never becomes a special token, and none is added.

    It is lossless if all text is spelt in bytes and nothing is changed before that, as in GPT-2's;
    bytes that are not UTF-8 are then encoded one by one. No other is taken to be.
    """

    lossless = False

    def files(self) -> dict[str, bytes]:
        return {_FILE: self._json}

    def restore(self, files: Mapping[str, bytes]) -> None:
        try:
            tokenizer = tokenizers.Tokenizer.from_str(files[_FILE].decode())
        except Exception as error:  # no narrower one: it is what the library raises
            raise TokenizerError(f"it is no {_FILE}: {error!r}") from error
        self._take(tokenizer)

    def _take(self, tokenizer: tokenizers.Tokenizer) -> None:
        tokenizer.no_truncation()
        tokenizer.no_padding()
        tokenizer.encode_special_tokens = True  # like any other text
        self._tokenizer = tokenizer
        self._json = tokenizer.to_str().encode()
        description = json.loads(self._json)
        self.lossless = _spells_bytes(description)
        self._cut_at_words = _cuts_at_words(description)
        vocabulary = tokenizer.get_vocab(with_added_tokens=True)
        added = {token["content"] for token in description["added_tokens"]}
        prefix = description["model"].get("continuing_subword_prefix") or ""
        size = max(vocabulary.values()) + 1
        pieces = [b"<|%d|>" % id_ for id_ in range(size)]  # the ids that the vocabulary leaves out
        for token, id_ in vocabulary.items():
            if self.lossless and token not in added and _BYTES.keys() >= set(token):
                pieces[id_] = bytes(_BYTES[character] for character in token)
            else:
                pieces[id_] = token.removeprefix(prefix).encode()
        self.pieces = pieces
        self._dtype = smallest_unsigned(size)
        if self.lossless:
            self._byte_ids = np.array([vocabulary[character] for character in _BYTES], self._dtype)

    def encode(self, text: str) -> Ids:
        if self.lossless and not is_unicode(text):
            return encode_apart(text, STRAY_BYTES, self._encode, self._spell)
        require_unicode(text)
        return self._encode(text)

    def _encode(self, text: str) -> Ids:
        encodings = self._tokenizer.encode_batch_fast([text], add_special_tokens=False)
        return np.array(encodings[0].ids, dtype=self._dtype)

    def _spell(self, run: bytes) -> Ids:
        return self._byte_ids[np.frombuffer(run, dtype=np.uint8)]

    def decode(self, ids: Sequence[int] | NDArray[np.integer]) -> str:
        if self.lossless:
            return super().decode(ids)
        plain = np.asarray(ids, dtype=np.int64).tolist()
        return str(self._tokenizer.decode(plain, skip_special_tokens=False))

    def last_cut(self, text: str) -> int:
        return last_word_start(text) if self._cut_at_words else 0


class HuggingFace(_FromJson):
    """A published tokenizer. name: a folder, or a name on the Hugging Face Hub.

    A name is looked for in the asset path, laid out like the Hub's own cache (hf/hub/models--…), in
    the cache, in the Hub's own cache, and on the network. A folder without a tokenizer.json is
    converted by AutoTokenizer, if it has a fast version; the network gives a tokenizer.json only.
    revision: a branch or commit. sha256: of the tokenizer.json, where it is known. Code that comes
    with a tokenizer is never run.
    """

    def __init__(self, name: str, revision: str = "main", sha256: str | None = None) -> None:
        if not name.strip("/. "):
            raise ValueError(f"name={name!r} must be a folder or a name on the Hugging Face Hub")
        if not re.fullmatch(r"\w[\w-]*([./]\w[\w-]*)*", revision):
            raise ValueError(f"revision={revision!r} is no branch or commit")
        self._name, self._revision, self._sha256 = name, revision, sha256

    def fetch(self, vocabularies: Vocabularies) -> None:
        folder = self._folder(vocabularies)
        if folder is not None and not (folder / _FILE).is_file():
            self.restore({_FILE: _converted(folder)})
            return
        path = folder / _FILE if folder is not None else self._download(vocabularies)
        content = path.read_bytes()
        found = hashlib.sha256(content).hexdigest()
        if self._sha256 not in (None, found):
            raise TokenizerError(
                f"{path} is not the file wanted: its SHA-256 is {found}, not {self._sha256}"
            )
        try:
            self.restore({_FILE: content})
        except TokenizerError as error:
            raise TokenizerError(f"{path} can't be used: {error}") from error

    def _folder(self, vocabularies: Vocabularies) -> Path | None:
        """Where the tokenizer's files are on this machine."""
        given = Path(self._name).expanduser()
        if given.is_dir():
            return given
        own = _hub_cache() / Path(self._repository).name
        for repository in (vocabularies.locate(self._repository), own):
            if repository is not None:
                reference = repository / "refs" / self._revision
                commit = reference.read_text().strip() if reference.is_file() else self._revision
                if (repository / "snapshots" / commit).is_dir():
                    return repository / "snapshots" / commit
        return None

    def _download(self, vocabularies: Vocabularies) -> Path:
        return vocabularies.find(
            f"{self._repository}/snapshots/{self._revision}/{_FILE}",
            f"https://huggingface.co/{self._name}/resolve/{self._revision}/{_FILE}",
            self._sha256,
        )

    @property
    def _repository(self) -> str:
        return f"hf/hub/models--{self._name.replace('/', '--')}"


class BytePairs(_FromJson):
    """Byte-level byte pairs, as in GPT-2, learnt by Hugging Face's library (Sennrich et al. 2016,
    arXiv 1508.07909; Radford et al. 2019).

    vocab_size: the most ids; fewer if the text has no more pairs that occur min_frequency times.
    """

    def __init__(self, vocab_size: int = 4096, min_frequency: int = 2) -> None:
        if not 256 <= vocab_size <= 2**20:
            raise ValueError(f"vocab_size={vocab_size} must lie between 256 bytes and 1048576")
        if min_frequency < 1:
            raise ValueError(f"min_frequency={min_frequency} must be at least 1")
        self._vocab_size, self._min_frequency = vocab_size, min_frequency
        self.recipe = f"tokenizers {tokenizers.__version__} {vocab_size} {min_frequency}"

    def fit(self, train: Iterable[str]) -> None:
        tokenizer = tokenizers.Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        trainer = trainers.BpeTrainer(
            vocab_size=self._vocab_size,
            min_frequency=self._min_frequency,
            initial_alphabet=list(_BYTES),
            show_progress=False,
        )
        self._cut_at_words = True
        texts = (run for text in self.recut(train) for run in re.split(f"[{STRAY_BYTES}]+", text))
        tokenizer.train_from_iterator(texts, trainer)
        self._take(tokenizer)

    def notes(self) -> list[str]:
        if self.vocab_size == self._vocab_size:
            return []
        return [
            f"the text supports {self.vocab_size} ids, not tokenizer.vocab_size="
            f"{self._vocab_size}: the vocabulary has as many"
        ]


def _converted(folder: Path) -> bytes:
    """tokenizer.json as AutoTokenizer makes it from a folder's other files.

    In a process of its own: transformers asks the network about local folders, too, unless told not
    to before it is first imported, and that would then hold for whatever else uses the Hub.
    """
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", _CONVERT, str(folder)]
    done = subprocess.run(command, capture_output=True, env=environment)
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        reason = said[-1] if said else f"exit code {done.returncode}"
        raise TokenizerError(f"AutoTokenizer makes no tokenizer from {folder}: {reason}")
    return done.stdout


def _hub_cache() -> Path:
    """The Hub's own cache, where huggingface_hub documents it to be."""
    home = os.environ.get("HF_HOME", "~/.cache/huggingface")
    return Path(os.environ.get("HF_HUB_CACHE", f"{home}/hub")).expanduser()


def _spells_bytes(description: dict[str, Any]) -> bool:
    """Whether every text is spelt in bytes and all of them are kept."""
    before, model = description["pre_tokenizer"] or {"type": None}, description["model"]
    steps = before["pretokenizers"] if before["type"] == "Sequence" else [before]
    kinds = [step["type"] for step in steps]
    return (
        description["normalizer"] is None
        and kinds.count("ByteLevel") == 1
        and all(kind in ("ByteLevel", "Split", "Digits") for kind in kinds)
        and not any(step.get("add_prefix_space") for step in steps)
        and not any(step.get("behavior") == "Removed" for step in steps)
        and not any(token["lstrip"] or token["rstrip"] for token in description["added_tokens"])
        and model["type"] == "BPE"
        and not any(
            model.get(key) for key in ("dropout", "continuing_subword_prefix", "end_of_word_suffix")
        )
        and _BYTES.keys() <= model["vocab"].keys()
    )


def _cuts_at_words(description: dict[str, Any]) -> bool:
    """Whether its pre-tokenizer is one of those that `last_word_start` is about."""
    before = description["pre_tokenizer"] or {"type": None}
    normalizer = (description["normalizer"] or {"type": None})["type"]
    gpt2 = before["type"] == "ByteLevel" and before["use_regex"] and normalizer is None
    bert = before["type"] == "BertPreTokenizer" and normalizer in (None, "BertNormalizer")
    return (gpt2 or bert) and all(token["special"] for token in description["added_tokens"])


def _byte_characters() -> dict[str, int]:
    """The character by which byte-level vocabularies write each byte, in the order of the bytes:
    itself where it can be seen, else one from 256 on (Radford et al. 2019)."""
    seen = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return {chr(byte if byte in seen else next(others)): byte for byte in range(256)}


_BYTES = _byte_characters()
