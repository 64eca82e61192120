"""A vocabulary that no tokenizer wrote is refused in words: no panic, no memory for its gaps."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.common.errors import UsageError
from harness.runs.folder import RunFolder
from zoo_tokenizers import TokenizerError
from zoo_tokenizers.huggingface import BytePairs
from zoo_tokenizers.tiktoken import Tiktoken

SETTINGS = {"name": "r50k_base", "pat_str": r"\S+|\s+", "special_tokens": {}}


def ranks(*more: tuple[bytes, int]) -> bytes:
    pieces = [*((bytes([byte]), byte) for byte in range(256)), *more]
    return b"".join(base64.b64encode(piece) + b" %d\n" % rank for piece, rank in pieces)


def restore(content: bytes, **changes: Any) -> Tiktoken:
    tokenizer = Tiktoken("r50k_base")
    settings = json.dumps(SETTINGS | changes).encode()
    tokenizer.restore({"encoding.json": settings, "ranks.tiktoken": content})
    return tokenizer


def test_tiktokens_panics_are_refusals() -> None:
    assert restore(ranks((b"ab", 256))).encode("ab").tolist() == [256]
    with pytest.raises(TokenizerError, match=r"can't use this vocabulary: .*equal length"):
        restore(ranks((b"ab", 7)))
    with pytest.raises(TokenizerError, match=r"can't use this vocabulary: .*out of range"):
        restore(ranks(), pat_str="").encode("ab")


@pytest.mark.parametrize("where", ["vocab", "added_tokens"])
def test_an_id_that_asks_for_all_memory_is_refused_before_it_gets_it(where: str) -> None:
    tokenizer = BytePairs(vocab_size=270, min_frequency=2)
    tokenizer.fit(["green bottles, green bottles"])
    description = json.loads(tokenizer.files()["tokenizer.json"])
    if where == "vocab":
        description["model"]["vocab"]["T"] = 4_000_000_000
    else:
        description["added_tokens"].append({"id": 4_000_000_000, "content": "<s>"})
    with pytest.raises(TokenizerError, match="ids from 0 to 4000000000 can't be used"):
        tokenizer.restore({"tokenizer.json": json.dumps(description).encode()})


@pytest.mark.parametrize("header", [b"\x1b[31m{", b"{'shape': (", b"[" * 90, b"{'descr': 0 0"])
def test_counts_with_any_header_are_refused(tmp_path: Path, header: bytes) -> None:
    np.save(tmp_path / "train_counts.npy", np.arange(4))
    content = bytearray((tmp_path / "train_counts.npy").read_bytes())
    content[10 : 10 + len(header)] = header
    (tmp_path / "train_counts.npy").write_bytes(content)
    with pytest.raises(UsageError, match=r"train_counts.npy can't be read"):
        RunFolder(tmp_path).read_counts(4)
