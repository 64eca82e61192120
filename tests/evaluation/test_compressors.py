"""What a compressor pays for the test text once it knows the train text."""

from __future__ import annotations

import bz2
import lzma
from pathlib import Path

import numpy as np
import pytest

from harness.data.dataset import Dataset
from harness.evaluation import compressors
from harness.evaluation.compressors import COMPRESSORS, compress_test
from tests.data.datasets import dataset_of
from zoo_tokenizers.bytes import Bytes

NOISE = np.random.default_rng(0).integers(0, 256, 10_000, dtype=np.uint8).tobytes()


def dataset(folder: Path, train: bytes, val: bytes, test: bytes) -> Dataset:
    whole = train + val + test
    shares = [len(train) / len(whole), len(val) / len(whole), len(test) / len(whole)]
    return dataset_of(folder, whole, Bytes(), shares)


def test_known_text_is_nearly_free_and_noise_costs_all(tmp_path: Path) -> None:
    """The validation text between them is not read."""
    latin = NOISE.translate(bytes(n % 128 for n in range(256)))
    train, val, test = latin[:4000], latin[4000:6000], latin[6000:8000]
    for heard, bits in ((train[:2000], (0.0, 0.3)), (val, (6.9, 7.6)), (test, (6.9, 7.6))):
        found = compress_test(dataset(tmp_path, train, val, heard))
        assert bits[0] < found["xz -9e"].bits_per_byte < bits[1]
    assert 6.9 < found["bz2 -9"].bits_per_byte < 7.6


def test_the_bits_are_those_of_the_programs(tmp_path: Path) -> None:
    """As `xz -9e` and `bz2 -9` write them, but for xz's container, which is the same twice."""
    words = np.random.default_rng(1).choice(["to ", "be ", "or ", "not ", "that "], 9000)
    text = "".join(words).encode()
    train, val, test = text[:20_000], text[20_000:24_000], text[24_000:]
    found = compress_test(dataset(tmp_path, train, val, test))
    for name, compress in (
        ("xz -9e", lambda text: lzma.compress(text, preset=9 | lzma.PRESET_EXTREME)),
        ("bz2 -9", lambda text: bz2.compress(text, 9)),
    ):
        more = len(compress(train + test)) - len(compress(train))
        # The container rounds up to four bytes.
        assert found[name].bits_per_byte == pytest.approx(8 * more / len(test), abs=32 / len(test))


@pytest.mark.parametrize("name", COMPRESSORS)
def test_nothing_is_lost(name: str) -> None:
    packed = COMPRESSORS[name].compress(NOISE * 3)
    if name.startswith("xz"):
        filters = [{"id": lzma.FILTER_LZMA2, "dict_size": 1 << 20}]
        back = lzma.decompress(packed, format=lzma.FORMAT_RAW, filters=filters)
    else:
        back = bz2.decompress(packed)
    assert back == NOISE * 3
    assert len(packed) < 3.1 * len(NOISE)


def test_texts_beyond_every_window_and_without_a_test_split_have_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = b"abc" * 100
    assert compress_test(dataset_of(tmp_path, text, Bytes(), [0.5, 0.5, 0.0])) == {}
    ours = dataset_of(tmp_path, text, Bytes())
    assert compress_test(ours).keys() == COMPRESSORS.keys()
    monkeypatch.setattr(compressors, "XZ_WINDOW", 200)
    assert compress_test(ours) == {}
