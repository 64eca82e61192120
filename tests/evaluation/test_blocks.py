"""A test score's blocks: they add up to the score, and lie on the bytes that they claim."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.evaluation.token_losses import unknown_characters
from harness.runs import blocks
from harness.runs.blocks import Blocks, block_size, borders, per_block
from harness.runs.damage import DamageError
from tests import small_runs as training


@given(st.integers(1, 10**12))
def test_blocks_cover_a_text_and_are_few(text_bytes: int) -> None:
    size = block_size(text_bytes)
    assert size == 256 or text_bytes / size > blocks.MAX_BLOCKS / 2
    assert math.ceil(text_bytes / size) <= blocks.MAX_BLOCKS


@given(st.lists(st.tuples(st.integers(0, 700), st.floats(0, 20)), min_size=1, max_size=60))
def test_blocks_share_tokens_out_by_their_bytes(tokens: list[tuple[int, float]]) -> None:
    """Against a loop over single bytes."""
    sizes = np.array([size for size, _ in tokens])
    nats = np.array([nats for _, nats in tokens])
    if sizes.sum() == 0:
        return
    found = per_block(nats, sizes)
    assert found.sum() == pytest.approx(nats.sum(), rel=1e-12, abs=1e-9)
    if (sizes > 0).all():
        each = np.concatenate([np.full(size, own / size) for size, own in tokens])
        edges = borders(len(each))
        expected = [each[a:b].sum() for a, b in itertools.pairwise(edges)]
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)


def test_tokenizers_of_the_same_cost_a_byte_have_the_same_blocks() -> None:
    """However the text is cut into tokens: the reason for sharing tokens out."""
    generator = np.random.default_rng(0)
    fine = np.ones(5000, dtype=int)
    coarse = np.diff([0, *sorted(generator.choice(np.arange(1, 5000), 900, replace=False)), 5000])
    np.testing.assert_allclose(per_block(fine * 0.7, fine), per_block(coarse * 0.7, coarse))


def test_unknown_characters_are_found_by_their_bytes() -> None:
    text = "aé日]b日^\udcff-é"
    found = list(unknown_characters([text[:3], text[3:]], ["日", "]", "^", "-"]))
    content = text.encode("utf-8", "surrogateescape")
    assert [content[at : at + size].decode() for at, size in found] == ["日", "]", "日", "^", "-"]


@pytest.mark.parametrize("tokenizer", ["char", "bytes", "bpe"])
def test_a_training_leaves_blocks_that_add_up_to_its_test_score(
    tmp_path: Path, tokenizer: str
) -> None:
    """Also where the test split has characters that train lacks, here behind its first block."""
    text = training.TEXT * 2 + "é" * 3 + "日 and so on" * 40
    (tmp_path / "corpus.txt").write_text(text)
    assert training.train(tmp_path / "t", f"tokenizer={tokenizer}") == 0
    found = blocks.read(tmp_path / "t" / "run")
    assert found is not None
    scored = training.summary(tmp_path / "t")["test"]
    assert sum(found.nats) / math.log(2) / scored["bytes"] == pytest.approx(
        scored["bits_per_byte"], rel=1e-6
    )
    content = text.encode()
    assert found.start + found.bytes == len(content)
    assert found.sizes.sum() == found.bytes
    if tokenizer == "char":
        assert scored["unknown"] == 3 + 40
        # Each unknown costs some 20 nats: the blocks that hold them stand out.
        test = content[found.start :]
        holds = ["日".encode() in test[at : at + 256] for at in range(0, len(test), 256)]
        costs = np.array(found.nats) / found.sizes
        assert costs[holds].min() > costs[~np.array(holds)].max()


@pytest.mark.long
def test_a_lossy_tokenizer_leaves_none(tmp_path: Path, assets: Path) -> None:
    assert training.train(tmp_path / "t", "tokenizer=bert", f"assets=[{assets}]") == 0
    assert not (tmp_path / "t" / "run" / blocks.FILE).exists()


@pytest.mark.parametrize(
    "change",
    [
        {"nats": [1.0]}, {"nats": [1.0, math.nan]}, {"nats": ["1", 2]}, {"bytes": 600},
        {"block_bytes": 128}, {"block_bytes": 0}, {"start": "0"}, {"more": 1}, {"nats": 3},
        {"bytes": 0}, {"nats": [True, 1.0]}, {"corpus": 3},
    ],
)  # fmt: skip
def test_blocks_that_no_run_writes_are_refused(tmp_path: Path, change: dict[str, object]) -> None:
    sound = Blocks("ab", 7, 300, 256, (1.0, 2.0))
    sound.write(tmp_path)
    assert blocks.read(tmp_path) == sound
    (tmp_path / blocks.FILE).write_text(json.dumps(asdict(sound) | change))
    with pytest.raises(DamageError):
        blocks.read(tmp_path)
