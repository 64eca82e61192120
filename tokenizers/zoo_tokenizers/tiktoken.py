"""OpenAI's byte-pair encodings, by the tiktoken library."""

from __future__ import annotations

import base64
import difflib
import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import tiktoken
import tiktoken.load
import tiktoken.registry

from zoo_tokenizers.text import STRAY_BYTES, encode_apart, is_unicode, last_word_start
from zoo_tokenizers.tokenizer import Ids, Tokenizer, Vocabularies, smallest_unsigned

# Those whose patterns `last_word_start` knows; a text in another encoding is encoded in one piece.
_CUT_AT_WORDS = {
    *("gpt2", "r50k_base", "p50k_base", "p50k_edit"),
    *("cl100k_base", "o200k_base", "o200k_harmony"),
}


class Tiktoken(Tokenizer):
    """encoding: a name that tiktoken knows (p50k_base, cl100k_base, …).

    Text never becomes a special token: `<|endoftext|>` in a corpus is encoded as the characters it
    is. Bytes that are not UTF-8 are encoded one by one.
    """

    def __init__(self, encoding: str) -> None:
        names = tiktoken.list_encoding_names()  # which also fills the registry
        if encoding not in names:
            close = difflib.get_close_matches(encoding, names, n=3, cutoff=0.4)
            nearest = f" Did you mean {' or '.join(close)}?" if close else ""
            raise ValueError(
                f"encoding={encoding} is not known to tiktoken.{nearest} "
                f"It knows {', '.join(sorted(names))}"
            )
        self._name = encoding
        self._files: dict[str, bytes] = {}

    def fetch(self, vocabularies: Vocabularies) -> None:
        constructors = tiktoken.registry.ENCODING_CONSTRUCTORS or {}
        with _reading_through(vocabularies):
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
        self._encoding = tiktoken.Encoding(**settings, mergeable_ranks=ranks)
        size = max(*ranks.values(), *specials.values()) + 1
        pieces = [b"<|%d|>" % id_ for id_ in range(size)]  # the ids that the encoding leaves out
        for piece, id_ in [
            *ranks.items(),
            *((name.encode(), id_) for name, id_ in specials.items()),
        ]:
            pieces[id_] = piece
        self.pieces = pieces
        self._dtype = smallest_unsigned(size)
        self._byte_ids = np.array([ranks[bytes([byte])] for byte in range(256)], self._dtype)
        self._files = dict(files)

    def encode(self, text: str) -> Ids:
        if is_unicode(text):
            return self._encode(text)
        return encode_apart(text, STRAY_BYTES, self._encode, self._spell)

    def _encode(self, text: str) -> Ids:
        return self._encoding.encode_to_numpy(text, disallowed_special=()).astype(self._dtype)

    def _spell(self, run: bytes) -> Ids:
        return self._byte_ids[np.frombuffer(run, dtype=np.uint8)]

    def last_cut(self, text: str) -> int:
        return last_word_start(text) if self._name in _CUT_AT_WORDS else 0


@contextmanager
def _reading_through(vocabularies: Vocabularies) -> Iterator[None]:
    """tiktoken asks for each file through one function. Its own knows no time-out, and removes
    from its cache, which may be a mirror, what it does not like."""
    original = tiktoken.load.read_file_cached

    def read(blobpath: str, expected_hash: str | None = None) -> bytes:
        name = hashlib.sha1(blobpath.encode()).hexdigest()  # as in tiktoken's own cache
        return vocabularies.find(f"tiktoken/{name}", blobpath, expected_hash).read_bytes()

    tiktoken.load.read_file_cached = read
    try:
        yield
    finally:
        tiktoken.load.read_file_cached = original
