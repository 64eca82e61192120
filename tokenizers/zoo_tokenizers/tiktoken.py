"""OpenAI's byte-pair encodings, by the library tiktoken."""

from __future__ import annotations

import base64
import difflib
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import tiktoken
import tiktoken.load
import tiktoken.registry

from zoo_tokenizers.text import encode_with_bytes, is_unicode, last_word_start
from zoo_tokenizers.tokenizer import (
    AssetFinder,
    Ids,
    Tokenizer,
    refusing,
    require_vocabulary,
    smallest_unsigned,
)

# Encodings for which `last_word_start` holds. Other encodings need the whole text at once.
_CUT_AT_WORDS = {
    *("gpt2", "r50k_base", "p50k_base", "p50k_edit"),
    *("cl100k_base", "o200k_base", "o200k_harmony"),
}


class Tiktoken(Tokenizer):
    """encoding: a name that tiktoken knows (p50k_base, cl100k_base, …).

    Text never becomes a special token: `<|endoftext|>` in a corpus is encoded like other text.
    Bytes that are not UTF-8 are encoded one by one.
    """

    def __init__(self, encoding: str) -> None:
        names = tiktoken.list_encoding_names()  # also fills the registry
        if encoding not in names:
            close = difflib.get_close_matches(encoding, names, n=3, cutoff=0.4)
            nearest = f" Did you mean {' or '.join(close)}?" if close else ""
            raise ValueError(
                f"encoding={encoding} is not known to tiktoken.{nearest} "
                f"It knows {', '.join(sorted(names))}"
            )
        self._name = encoding
        self._files: dict[str, bytes] = {}

    def fetch(self, assets: AssetFinder) -> None:
        constructors = tiktoken.registry.ENCODING_CONSTRUCTORS or {}
        with _files_from(assets):
            found = constructors[self._name]()
        ranks = sorted(found["mergeable_ranks"].items(), key=lambda item: item[1])
        lines = (base64.b64encode(piece) + b" %d\n" % rank for piece, rank in ranks)
        settings = {key: found[key] for key in ("name", "pat_str", "special_tokens")}
        self.restore(
            {
                "encoding.json": json.dumps(settings, indent=1).encode(),
                "ranks.tiktoken": b"".join(lines),
            }
        )

    def files(self) -> dict[str, bytes]:
        return self._files

    def restore(self, files: Mapping[str, bytes]) -> None:
        settings = json.loads(files["encoding.json"])
        lines = (line.split() for line in files["ranks.tiktoken"].splitlines())
        ranks = {base64.b64decode(piece): int(rank) for piece, rank in lines}
        specials = settings["special_tokens"]
        size = require_vocabulary([*ranks.values(), *specials.values()])
        with refusing("tiktoken can't use this vocabulary"):
            self._encoding = tiktoken.Encoding(**settings, mergeable_ranks=ranks)
        pieces = [b"<|%d|>" % id_ for id_ in range(size)]  # for gaps in the encoding
        for piece, id_ in (ranks | {name.encode(): id_ for name, id_ in specials.items()}).items():
            pieces[id_] = piece
        self.pieces = pieces
        self._dtype = smallest_unsigned(size)
        self._byte_ids = np.array([ranks[bytes([byte])] for byte in range(256)], self._dtype)
        self._files = dict(files)

    def encode(self, text: str) -> Ids:
        if is_unicode(text):
            return self._encode(text)
        return encode_with_bytes(text, self._encode, self._byte_ids)

    def _encode(self, text: str) -> Ids:
        with refusing("tiktoken can't use this vocabulary"):
            ids = self._encoding.encode_to_numpy(text, disallowed_special=())
        return ids.astype(self._dtype)

    def last_safe_cut(self, text: str) -> int:
        return last_word_start(text) if self._name in _CUT_AT_WORDS else 0


def _cached(name: str, expected_hash: str | None) -> bytes | None:
    """A file of tiktoken's own cache, which may be anybody's: only with the expected digest."""
    default = os.path.join(tempfile.gettempdir(), "data-gym-cache")
    folder = os.environ.get("TIKTOKEN_CACHE_DIR", os.environ.get("DATA_GYM_CACHE_DIR", default))
    path = Path(folder) / name
    try:
        content = path.read_bytes() if folder and expected_hash and path.is_file() else b""
    except OSError:
        return None
    return content if hashlib.sha256(content).hexdigest() == expected_hash else None


@contextmanager
def _files_from(assets: AssetFinder) -> Iterator[None]:
    """Replace the function by which tiktoken reads files. The original has no time-out, and deletes
    files with another digest from its cache, which may be a mirror. What it has cached is used."""
    original = tiktoken.load.read_file_cached

    def read(blobpath: str, expected_hash: str | None = None) -> bytes:
        name = hashlib.sha1(blobpath.encode()).hexdigest()  # as in tiktoken's own cache
        own = f"tiktoken/{name}"
        if assets.locate(own) is None and (cached := _cached(name, expected_hash)) is not None:
            return cached
        return assets.find(own, blobpath, expected_hash).read_bytes()

    tiktoken.load.read_file_cached = read
    try:
        yield
    finally:
        tiktoken.load.read_file_cached = original
