"""Tokenizers of Hugging Face's library: published ones by name or folder, and a learnt one.

A tokenizer is one file, tokenizer.json, as for the fast tokenizers of transformers.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
from numpy.typing import NDArray
from tokenizers import models, pre_tokenizers, trainers

from zoo_tokenizers.text import (
    STRAY_BYTES,
    encode_with_bytes,
    is_unicode,
    last_word_start,
    require_unicode,
)
from zoo_tokenizers.tokenizer import (
    AssetFinder,
    Ids,
    Tokenizer,
    TokenizerError,
    refusing,
    require_vocabulary,
    smallest_unsigned,
)

_FILE = "tokenizer.json"
LONGEST_WORD = 1000
# A character has at most four bytes.
_LONG_WORD = re.compile(
    rf"(?<!\S)\S{{{LONGEST_WORD // 4},}}|(?<!\s)\s{{{LONGEST_WORD // 4},}}"
)  # looked for where a run begins alone
_CONVERT = """
import sys
from transformers import AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained(
    sys.argv[1], local_files_only=True, trust_remote_code=False
)
if not tokenizer.is_fast:
    sys.exit("it has no fast version")
sys.stdout.buffer.write(tokenizer.backend_tokenizer.to_str().encode())
"""


def _require_ids(description: Any) -> None:
    """Raises TokenizerError for ids so large that the library would ask for all memory to hold what
    lies between them."""
    vocabulary = description["model"]["vocab"]  # a list has no ids
    if isinstance(vocabulary, dict):
        require_vocabulary(vocabulary.values())
    require_vocabulary([0, *(token["id"] for token in description.get("added_tokens") or ())])


class _FromJson(Tokenizer):
    """The tokenizer of a tokenizer.json. Text never becomes a special token, and none is added.

    It is lossless if it is a byte-level tokenizer that changes nothing before that, like GPT-2's;
    bytes that are not UTF-8 are then encoded one by one. All others count as lossy.
    """

    lossless = False

    def files(self) -> dict[str, bytes]:
        return {_FILE: self._json}

    def restore(self, files: Mapping[str, bytes]) -> None:
        content = files[_FILE]
        with refusing(f"it is not a {_FILE}"):
            _require_ids(json.loads(content))
            self._set(tokenizers.Tokenizer.from_str(content.decode()), content)

    def _set(self, tokenizer: tokenizers.Tokenizer, content: bytes) -> None:
        """content: the file. It is kept as it is: another release of the library would write it
        otherwise."""
        tokenizer.no_truncation()
        tokenizer.no_padding()
        tokenizer.encode_special_tokens = True  # like other text
        if getattr(tokenizer.model, "dropout", None):
            tokenizer.model.dropout = None  # else it draws the ids of a text at random
        self._tokenizer, self._json = tokenizer, content
        description = json.loads(tokenizer.to_str())
        self.lossless = _is_byte_level(description)
        self._can_cut_at_words = _cuts_at_words(description)
        vocabulary = tokenizer.get_vocab(with_added_tokens=True)
        added = {token["content"] for token in description["added_tokens"]}
        prefix = description["model"].get("continuing_subword_prefix") or ""
        size = require_vocabulary(vocabulary.values())
        pieces = [b"<|%d|>" % id_ for id_ in range(size)]  # for gaps in the vocabulary
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
            return encode_with_bytes(text, self._encode, self._byte_ids)
        require_unicode(text)
        return self._encode(text)

    def _encode(self, text: str) -> Ids:
        with refusing("the tokenizer can't encode the text"):
            encodings = self._tokenizer.encode_batch_fast([text], add_special_tokens=False)
        return np.array(encodings[0].ids, dtype=self._dtype)

    def decode(self, ids: Sequence[int] | NDArray[np.integer]) -> str:
        if self.lossless:
            return super().decode(ids)
        plain = np.asarray(ids, dtype=np.int64).tolist()
        with refusing("the tokenizer can't decode its ids"):
            return str(self._tokenizer.decode(plain, skip_special_tokens=False))

    def last_safe_cut(self, text: str) -> int:
        return last_word_start(text) if self._can_cut_at_words else 0


class HuggingFace(_FromJson):
    """A published tokenizer. name: a folder, or a name on the Hugging Face Hub.

    A name is looked up in the asset path and our cache (both laid out like the Hub's cache,
    hf/hub/models--…), in the Hub's cache, and on the network, from which only a tokenizer.json is
    read. A folder without a tokenizer.json is converted by AutoTokenizer, if there is a fast
    version. revision: a branch or commit. sha256: of the tokenizer.json, if known: then there must
    be one, and a folder that happens to be called like the name is not taken for it. Code that
    comes with a tokenizer is never run.
    """

    def __init__(self, name: str, revision: str = "main", sha256: str | None = None) -> None:
        if not name.strip("/. "):
            raise ValueError(f"name={name!r} must be a folder or a name on the Hugging Face Hub")
        if not re.fullmatch(r"\w[\w-]*([./]\w[\w-]*)*", revision):
            raise ValueError(f"revision={revision!r} is not a branch or commit")
        self._name, self._revision, self._sha256 = name, revision, sha256

    def fetch(self, assets: AssetFinder) -> None:
        folder = self._folder(assets)
        if folder is not None and not (folder / _FILE).is_file():
            if self._sha256 is not None:
                raise TokenizerError(f"{folder} has no {_FILE} whose SHA-256 could be checked")
            self.restore({_FILE: _convert(folder)})
            return
        if folder is not None:
            path = folder / _FILE
        else:
            path = assets.find(
                f"{self._repository}/snapshots/{self._revision}/{_FILE}",
                f"{_hub()}/{self._name}/resolve/{self._revision}/{_FILE}",
                self._sha256,
                unasked=_offline(),
            )
        content = path.read_bytes()
        found = hashlib.sha256(content).hexdigest()
        if self._sha256 not in (None, found):
            raise TokenizerError(
                f"{path} is not the expected file: its SHA-256 is {found}, not {self._sha256}"
            )
        try:
            self.restore({_FILE: content})
        except TokenizerError as error:
            raise TokenizerError(f"{path} can't be used: {error}") from error

    def _folder(self, assets: AssetFinder) -> Path | None:
        """The folder with the tokenizer's files on this machine; None if there is none."""
        given = Path(os.path.expanduser(self._name))
        is_meant = self._sha256 is None or self._name.startswith((".", "/", "~"))
        if given.is_dir() and (is_meant or _digest(given / _FILE) == self._sha256):
            return given
        in_hub_cache = _hub_cache() / Path(self._repository).name
        for repository in (assets.locate(self._repository), in_hub_cache):
            if repository is not None:
                reference = repository / "refs" / self._revision
                commit = reference.read_text().strip() if reference.is_file() else self._revision
                folder = repository / "snapshots" / commit
                # With a known digest no conversion will do.
                if (folder / _FILE).is_file() or (self._sha256 is None and folder.is_dir()):
                    return folder
        return None

    @property
    def _repository(self) -> str:
        return f"hf/hub/models--{self._name.replace('/', '--')}"


class BytePairs(_FromJson):
    """Byte-level byte-pair encoding, as in GPT-2, learnt by Hugging Face's library (Sennrich et al.
    2016, arXiv 1508.07909; Radford et al. 2019).

    vocab_size: the most ids; fewer if no more pairs occur min_frequency times. Where a word has
    more than LONGEST_WORD bytes, words are learnt and encoded in parts of that length: the time of
    the library grows with the square of a word's length.
    """

    def __init__(self, vocab_size: int = 4096, min_frequency: int = 2) -> None:
        if not 256 <= vocab_size <= 2**20:
            raise ValueError(f"vocab_size={vocab_size} must lie between 256 and 1048576")
        if min_frequency < 1:
            raise ValueError(f"min_frequency={min_frequency} must be at least 1")
        self._vocab_size, self._min_frequency = vocab_size, min_frequency
        self.recipe = (
            f"tokenizers {tokenizers.__version__} {vocab_size} {min_frequency} {LONGEST_WORD}"
        )

    def fit(self, train: Iterable[str]) -> None:
        tokenizer = tokenizers.Tokenizer(models.BPE())
        whole = pre_tokenizers.ByteLevel(add_prefix_space=False)
        parts = pre_tokenizers.FixedLength(LONGEST_WORD)
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([whole, parts])
        trainer = trainers.BpeTrainer(
            vocab_size=self._vocab_size,
            min_frequency=self._min_frequency,
            initial_alphabet=list(_BYTES),
            show_progress=False,
        )
        self._can_cut_at_words = True
        longest = 0

        def texts() -> Iterator[str]:
            nonlocal longest
            for text in self.rechunk(train):
                for run in re.split(f"[{STRAY_BYTES}]+", text):
                    words = (len(word[0].encode()) for word in _LONG_WORD.finditer(run))
                    longest = max(longest, *words, 0)
                    yield run

        tokenizer.train_from_iterator(texts(), trainer)
        if longest <= LONGEST_WORD:
            tokenizer.pre_tokenizer = whole
        self._set(tokenizer, tokenizer.to_str().encode())

    def notes(self) -> list[str]:
        notes = []
        if self.vocab_size != self._vocab_size:
            notes.append(
                f"the vocabulary has {self.vocab_size} ids: the text does not support "
                f"tokenizer.vocab_size={self._vocab_size}"
            )
        if len(_steps(json.loads(self._json))) > 1:
            notes.append(
                f"the text has more than {LONGEST_WORD} bytes without a blank, or of blanks alone: "
                "longer words are learnt and encoded in parts; without spaces (DNA, …) "
                "tokenizer=char or bytes may do better"
            )
        return notes


def _convert(folder: Path) -> bytes:
    """tokenizer.json, made by AutoTokenizer from the other files of a folder.

    Its code is never run: trust_remote_code is False, and standard input says nothing. In another
    process, because transformers uses the network even for local folders unless HF_HUB_OFFLINE is
    set before its import, and here that would affect all users of the Hub.
    """
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-P", "-c", _CONVERT, str(folder.absolute())]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, env=environment)
    if done.returncode:
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        reason = lines[-1] if lines else f"exit code {done.returncode}"
        raise TokenizerError(f"AutoTokenizer can't load {folder}: {reason}")
    return done.stdout


def _hub_cache() -> Path:
    """The Hub's cache, where huggingface_hub has it."""
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    home = os.environ.get("HF_HOME") or f"{cache}/huggingface"
    legacy = os.environ.get("HUGGINGFACE_HUB_CACHE") or f"{home}/hub"
    named = os.environ.get("HF_HUB_CACHE") or legacy
    return Path(os.path.expandvars(os.path.expanduser(named)))


def _hub() -> str:
    """The address of the Hub, or of its mirror."""
    return (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")


def _offline() -> str | None:
    """Why the Hub is not asked; None if it may be."""
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        if os.environ.get(name, "").upper() in ("1", "ON", "YES", "TRUE"):
            return f"{name}={os.environ[name]} is set"
    return None


def _digest(path: Path) -> str | None:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return None


def _steps(description: dict[str, Any]) -> list[dict[str, Any]]:
    """The pre-tokenizers, one after the other."""
    before = description["pre_tokenizer"] or {"type": None}
    if before["type"] != "Sequence":
        return [before]
    return before["pretokenizers"] or [{"type": None}]


def _is_byte_level(description: dict[str, Any]) -> bool:
    """Whether it encodes bytes and loses none of them."""
    steps, model = _steps(description), description["model"]
    kinds = [step["type"] for step in steps]
    return (
        description["normalizer"] is None
        and kinds.count("ByteLevel") == 1
        and all(kind in ("ByteLevel", "Split", "Digits", "FixedLength") for kind in kinds)
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
    """Whether `last_word_start` holds for its pre-tokenizer."""
    before, *parts = _steps(description)
    normalizer = (description["normalizer"] or {"type": None})["type"]
    gpt2 = before["type"] == "ByteLevel" and before["use_regex"] and normalizer is None
    gpt2 = gpt2 and all(part["type"] == "FixedLength" for part in parts)  # of each word
    bert = before["type"] == "BertPreTokenizer" and normalizer in (None, "BertNormalizer")
    bert = bert and not parts
    return (gpt2 or bert) and all(token["special"] for token in description["added_tokens"])


def _byte_characters() -> dict[str, int]:
    """The character of each byte in byte-level vocabularies, in the order of the bytes: the byte's
    own if it is visible, else one from 256 on (Radford et al. 2019)."""
    visible = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return {chr(byte if byte in visible else next(others)): byte for byte in range(256)}


_BYTES = _byte_characters()
