"""Data that are ids already: read exactly, split by ids, trained on as the text they stand for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from harness.common.errors import UsageError
from harness.data.assets import Assets
from harness.data.dataset import prepare
from harness.data.ids import IdFile
from tests.data.datasets import SHARES, parts_of
from tests.small_runs import GPT_SMALL, losses, summary, train
from zoo_tokenizers.ids import GivenIds

GENERATOR = np.random.default_rng(0)
IDS = GENERATOR.integers(0, 50_257, 300_007)  # several blocks of its text


def save(folder: Path, ids: np.ndarray, dtype: str | None) -> Path:
    path = folder / ("ids.npy" if dtype is None else "ids.bin")
    if dtype is None:
        np.save(path, ids)
    else:
        path.write_bytes(ids.astype(dtype).tobytes())
    return path


@pytest.mark.parametrize("dtype", [None, "uint16", "int64"])
def test_ids_come_back_split_by_number(tmp_path: Path, dtype: str | None) -> None:
    corpus = IdFile(str(save(tmp_path, IDS, dtype)), 50_257, SHARES, dtype)  # type: ignore[arg-type]
    assert corpus.words is not None
    dataset = prepare(corpus, GivenIds(corpus.words), Assets((), tmp_path / "cache"))
    parts = parts_of(dataset)
    assert np.array_equal(np.concatenate([part.ids for part in parts]), IDS)
    ends = np.cumsum([len(part.ids) for part in parts]).tolist()
    assert ends == [240_005, 270_006, 300_007]  # rounded down
    assert [part.bytes for part in parts] == [0, 0, 0]
    assert not dataset.tokenizer.lossless
    assert dataset.lost is None
    moved = corpus.moved_to(tmp_path / corpus.path.name).read(Assets((), tmp_path))
    assert moved.spans([(0, moved.size)])[0].sha256 == dataset.digest


def test_ids_of_a_text_are_trained_on_as_the_text(tmp_path: Path) -> None:
    """The same losses and scores, bit for bit."""
    text = "".join(f"{n} green bottles, hanging on the wall; {n % 7}\n" for n in range(400))
    (tmp_path / "ascii.txt").write_text(text)
    chosen = (*GPT_SMALL, "eval.sample_tokens=0", f"data.path={tmp_path / 'ascii.txt'}")
    assert train(tmp_path / "text", *chosen) == 0
    known = sorted(set(text[: int(0.94 * len(text))]))
    path = save(tmp_path, np.array([known.index(character) for character in text]), "uint8")
    given = (
        *("data._target_=harness.data.ids.IdFile", f"data.path={path}", "+data.dtype=uint8"),
        *("~data.errors", "~data.field", "~data.separator", "tokenizer=ids"),
        f"+data.vocab_size={len(known)}",
    )
    assert train(tmp_path / "ids", *GPT_SMALL, "eval.sample_tokens=5", *given) == 0
    assert losses(tmp_path / "ids") == losses(tmp_path / "text")
    own, of_text = summary(tmp_path / "ids")["test"], summary(tmp_path / "text")["test"]
    for key in ("nats_per_token", "tokens"):
        assert own[key] == of_text[key]
    assert (own["bits_per_byte"], own["bytes"]) == (None, 0)
    assert summary(tmp_path / "ids")["causal"] is True


REFUSED = {
    "large": (np.array([1, 2, 9, 3]), None, "id 9 at place 2 lies outside data.vocab_size=9"),
    "negative": (np.array([1, -2]), None, "id -2 at place 1 lies outside"),
    "real": (np.array([1.0]), None, "it holds float64 of shape (1,), not a row of ids"),
    "table": (np.zeros((2, 2), int), None, "it holds int64 of shape (2, 2), not a row of ids"),
    "objects": (np.array([{}]), None, "can't be read: Object arrays cannot be loaded"),
    "half": (np.arange(3), "uint8", "can't be read: buffer size must be a multiple"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_are_no_ids_is_refused(case: str, tmp_path: Path) -> None:
    ids, dtype, message = REFUSED[case]
    path = save(tmp_path, ids, dtype)
    corpus = IdFile(str(path), 9, SHARES, "uint16" if dtype else None)
    with pytest.raises(UsageError) as refused:
        corpus.read(Assets((), tmp_path))
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_what_a_file_does_not_say_must_be_given() -> None:
    with pytest.raises(ValueError, match="dtype has no value"):
        IdFile("train.bin", 9, SHARES)
    with pytest.raises(ValueError, match=r"a \.npy file says it itself"):
        IdFile("train.npy", 9, SHARES, "uint16")
    with pytest.raises(ValueError, match="vocab_size=0 must lie in"):
        IdFile("train.npy", 0, SHARES)
