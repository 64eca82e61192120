"""The score without the tokens that lie in passages which train has, too."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path

import numpy as np
import pytest

from harness.data.assets import Assets
from harness.data.corpus import TextFile
from harness.data.dataset import Dataset, prepare
from harness.data.documents import Lines
from harness.data.overlap import LONG
from harness.evaluation.score import Score, score_of
from harness.evaluation.without_copied import without_copied
from harness.report.records.runs import find_runs
from harness.report.statistics.ranking import compare_runs
from harness.report.text.terminal import print_comparison
from tests import small_runs
from tests.report.comparing import write_certificate, write_run
from zoo_tokenizers import EndMarker, Tokenizer
from zoo_tokenizers.bytes import Bytes
from zoo_tokenizers.characters import Characters

RANDOM = np.random.default_rng(0)
WORDS = "".join(map(chr, RANDOM.integers(97, 123, 8000)))
TRAIN, TEST = WORDS[:6400], WORDS[7200:]
HALF = [0.8, 0.1, 0.1]


def dataset_of(folder: Path, test: str, tokenizer: Tokenizer) -> Dataset:
    """With a test text of 800 bytes."""
    content = (WORDS[:7200] + test).encode()
    assert len(content) == 8000
    (folder / "text").write_bytes(content)
    return prepare(TextFile(str(folder / "text"), HALF), tokenizer, Assets((), folder / "cache"))


def scored(dataset: Dataset) -> Score:
    """Each token costs something else."""
    assert dataset.test is not None
    nats = np.random.default_rng(1).random(len(dataset.test.ids) - 1).astype(np.float32)
    return score_of(nats, dataset.test, dataset.tokenizer, None)


@pytest.mark.parametrize("tokenizer", [Bytes, Characters])
def test_with_nothing_copied_it_is_the_score(tokenizer: type[Tokenizer], tmp_path: Path) -> None:
    dataset = dataset_of(tmp_path, TEST[:-2] + "é", tokenizer())  # which char does not know
    score = scored(dataset)
    found = without_copied(dataset, "test", score)
    assert found is not None
    assert (found.copied, found.tokens, found.bytes) == (0, score.tokens, score.bytes)
    assert found.nats_per_token == pytest.approx(score.nats_per_token, rel=1e-9)
    assert found.bits_per_byte == pytest.approx(score.bits_per_byte, rel=1e-9)
    assert (found.passage, found.searched) == (LONG, 6400)


@pytest.mark.parametrize("length", [LONG - 1, LONG, 200])
def test_a_passage_is_left_out_from_its_first_byte_to_its_last(length: int, tmp_path: Path) -> None:
    passage = TRAIN[1000 : 1000 + length]
    test = TEST[:300] + passage + TEST[300 + length :]
    dataset = dataset_of(tmp_path, test, Bytes())
    score, found = scored(dataset), without_copied(dataset, "test", scored(dataset))
    assert found is not None
    if length < LONG:
        assert found.copied == 0
        return
    # A byte beside it may be train's by chance.
    assert length <= found.copied <= length + 4
    before = TEST[299] == TRAIN[999]
    after = test[300 + length] == TRAIN[1000 + length]
    assert found.copied == length + before + after
    left = np.ones(800, dtype=bool)
    left[0] = left[300 - before : 300 + length + after] = False
    nats = float(score.token_nats[left[1:]].sum(dtype=np.float64))
    assert (found.tokens, found.bytes) == (left.sum(), left.sum())
    assert found.nats_per_token == pytest.approx(nats / left.sum(), rel=1e-9)
    assert found.bits_per_byte == pytest.approx(nats / left.sum() / math.log(2), rel=1e-9)


def test_validation_is_not_looked_in(tmp_path: Path) -> None:
    test = WORDS[6400:6700] + TEST[300:]
    dataset = dataset_of(tmp_path, test, Bytes())
    found = without_copied(dataset, "test", scored(dataset))
    assert found is not None
    assert found.copied == 0


def test_of_all_that_is_copied_no_score_is_left(tmp_path: Path) -> None:
    dataset = dataset_of(tmp_path, TRAIN[:800], Bytes())
    found = without_copied(dataset, "test", scored(dataset))
    assert found is not None
    assert (found.copied, found.tokens, found.bytes) == (800, 0, 0)
    assert found.bits_per_byte is found.nats_per_token is None


def test_a_copied_document_goes_with_its_marker(tmp_path: Path) -> None:
    documents = [WORDS[at : at + 100] for at in range(0, 1000, 100)]
    documents[9] = documents[2]
    (tmp_path / "lines").write_text("\n".join(documents))
    corpus = Lines(str(tmp_path / "lines"), [0.6, 0.2, 0.2])
    dataset = prepare(corpus, EndMarker(Bytes()), Assets((), tmp_path / "cache"))
    score, found = scored(dataset), without_copied(dataset, "test", scored(dataset))
    assert found is not None
    assert (score.tokens, found.tokens, found.copied) == (202, 101, 100)
    own = score.token_nats[:101] if found.nats_per_token is not None else score.token_nats[101:]
    assert found.nats_per_token == pytest.approx(own.mean(dtype=np.float64), rel=1e-9)


# In runs and reports


def test_a_run_records_it(tmp_path: Path) -> None:
    corpus = "green bottles hanging on the wall, and if one of them should fall… \n" * 90
    (tmp_path / "corpus.txt").write_text(corpus)
    assert small_runs.train(tmp_path / "a", "model=bigram", "tokenizer=bytes", "train.steps=1") == 0
    found = small_runs.summary(tmp_path / "a")
    assert found["without_copied"]["copied"] == found["test"]["bytes"] + 1  # the same line again
    assert found["without_copied"]["bits_per_byte"] is None
    assert found["test"]["bits_per_byte"] is not None


def test_it_stands_beside_the_score(tmp_path: Path) -> None:
    for name, copied in (("gpt", 40), ("lstm", 40)):
        run = write_run(tmp_path / name, name, test=2.0)
        document = json.loads((run / "summary.json").read_text())
        document["without_copied"] = {
            "passage": 64, "searched": 6400, "copied": copied, "tokens": 900, "bytes": 900,
            "nats_per_token": 1.5, "bits_per_byte": 2.125,
        }  # fmt: skip
        (run / "summary.json").write_text(json.dumps(document))
        write_certificate(run, document, "passed")
    out = io.StringIO()
    print_comparison(compare_runs(find_runs([tmp_path]), "test"), out)
    head = next(line for line in out.getvalue().splitlines() if "unseen" in line)
    assert head.split()[:5] == ["model", "seeds", "test", "unseen", "val"]
    assert "2.125" in out.getvalue()
    assert (
        "text: 40 bytes of the test text (4.00%) lie in passages of 64 bytes or more that train "
        "has, too; the column unseen is the score without their tokens."
    ) in out.getvalue()
    out = io.StringIO()
    print_comparison(compare_runs(find_runs([tmp_path]), "val"), out)
    assert "unseen" not in out.getvalue()
