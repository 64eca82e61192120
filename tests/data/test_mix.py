"""A mix: each corpus is split by itself, and rows are drawn by weight."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

from harness.cli.hydra_app import compose
from harness.common.errors import RunFailure, UsageError
from harness.config.settings import read_settings
from harness.data.assets import Assets
from harness.data.batches import draw_batch, row_shape
from harness.data.corpus import split_points
from harness.data.dataset import Dataset, prepare, require_length
from harness.data.mix import Mix
from harness.training.checks import check_settings
from tests import small_runs
from tests.data.datasets import SHARES
from tests.data.mixes import TEXTS, WEIGHTS, cuts_of, files
from zoo_tokenizers import Tokenizer
from zoo_tokenizers.bytes import Bytes
from zoo_tokenizers.characters import Characters
from zoo_tokenizers.huggingface import BytePairs


def mixed(folder: Path, tokenizer: Tokenizer, weights: dict[str, float] | None = None) -> Dataset:
    corpus = Mix(files(folder), SHARES, weights)
    return prepare(corpus, tokenizer, Assets((), folder / "cache"))


def test_each_corpus_is_split_by_itself(tmp_path: Path) -> None:
    dataset = mixed(tmp_path, Bytes())
    for place, part in enumerate((dataset.train, dataset.val, dataset.test)):
        assert part is not None
        expected = {name: cuts_of(content)[place] for name, content in TEXTS.items()}
        found = {name: text.ids.astype(np.uint8).tobytes() for name, text in part.texts.items()}
        assert found == expected
        assert part.ids.astype(np.uint8).tobytes() == b"".join(expected.values())
        assert part.bytes == sum(map(len, expected.values()))
        span = dataset.parts[place]
        assert dataset.text.read(span.start, span.stop) == b"".join(expected.values())
        digests = [hashlib.sha256(own).hexdigest() for own in expected.values()]
        assert [own.sha256 for own in span.texts] == digests
        assert "".join(dataset.text.strings(*span[:2])).encode() == b"".join(expected.values())


def test_no_token_reaches_from_one_text_into_the_next(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_text("ab" * 200)
    corpus = Mix({name: str(tmp_path / name) for name in "ab"}, SHARES)
    dataset = prepare(
        corpus, BytePairs(vocab_size=270, min_frequency=2), Assets((), tmp_path / "cache")
    )
    alone = {name: dataset.tokenizer.encode("ab" * 160).tolist() for name in "ab"}
    assert {name: own.ids.tolist() for name, own in dataset.train.texts.items()} == alone


def test_the_tokenizer_is_learnt_from_the_train_parts_alone(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a" * 90 + "Ω" * 10)
    (tmp_path / "b").write_text("b" * 80 + "a" * 20)
    corpus = Mix({name: str(tmp_path / name) for name in "ab"}, SHARES)
    dataset = prepare(corpus, Characters(), Assets((), tmp_path / "cache"))
    assert b"".join(dataset.tokenizer.pieces) == b"ab"
    assert dataset.test is not None
    assert dataset.test.unknown == dataset.test.texts["a"].unknown
    assert dataset.test.unknown_nats == dataset.test.texts["a"].unknown_nats > 0
    assert not dataset.test.texts["b"].unknown


@pytest.mark.parametrize("weights", [WEIGHTS, None])
def test_rows_are_drawn_by_weight(tmp_path: Path, weights: dict[str, float] | None) -> None:
    """As often as the weights say, within five standard errors; each row is of one train text, and
    every place of it is as likely as another."""
    dataset, rows, steps, seq_len = mixed(tmp_path, Bytes(), weights), 50, 200, 7
    train = {name: own.ids.astype(np.uint8).tobytes() for name, own in dataset.train.texts.items()}
    total = sum(map(len, train.values()))
    expected = weights or {name: len(own) / total for name, own in train.items()}
    counts, first = dict.fromkeys(train, 0), []
    for step in range(steps):
        inputs, targets = draw_batch(
            dataset.train.ids, 3, step, rows, seq_len, dataset.row_documents
        )
        for row, target in zip(inputs.numpy(), targets.numpy(), strict=True):
            content = np.append(row, target[-1]).astype(np.uint8).tobytes()
            (of,) = [name for name, own in train.items() if content in own]
            counts[of] += 1
            if of == "few":
                first.append(row[0])
    number = rows * steps
    for name, share in expected.items():
        error = math.sqrt(share * (1 - share) / number)
        assert abs(counts[name] / number - share) < 5 * error, name
    places = np.bincount(np.array(first) - 97, minlength=26)
    assert (abs(places - len(first) / 26) < 6 * math.sqrt(len(first) / 26)).all()
    assert row_shape(dataset.row_documents, seq_len) == (seq_len, seq_len)


def test_a_batch_is_a_function_of_seed_and_step(tmp_path: Path) -> None:
    dataset = mixed(tmp_path, Bytes(), WEIGHTS)

    def batch(seed: int, step: int) -> list[int]:
        ids, documents = dataset.train.ids, dataset.row_documents
        return draw_batch(ids, seed, step, 4, 9, documents)[0].flatten().tolist()

    later = batch(0, 1000)
    seen = {tuple(batch(seed, step)) for seed in range(9) for step in range(9)}
    assert len(seen) == 81
    assert batch(0, 1000) == later
    again = mixed(tmp_path, Bytes(), WEIGHTS)
    found = draw_batch(again.train.ids, 0, 1000, 4, 9, again.row_documents)[0]
    assert found.flatten().tolist() == later


def test_other_borders_are_another_text(tmp_path: Path) -> None:
    """Of the same bytes in a row."""
    digests = set()
    for cut in (100, 200):
        for name, content in (("a", "x" * cut), ("b", "x" * (300 - cut))):
            (tmp_path / name).write_text(content)
        corpus = Mix({name: str(tmp_path / name) for name in "ab"}, SHARES)
        text = corpus.read(Assets((), tmp_path))
        digests.add(text.spans(split_points(text, SHARES))[0].sha256)
    assert len(digests) == 2


def test_a_choice_of_data_and_several_files(tmp_path: Path, assets: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    for name in "ab":
        (folder / f"{name}.txt").write_text(name * 200)
    texts = {"docs": "python_docs", "play": "tiny_shakespeare", "own": str(folder)}
    corpus = Mix(texts, [0.9, 0.05, 0.05])
    places = Assets((assets,), tmp_path / "cache")
    text = corpus.read(places)
    sizes = dict(zip(text.names, (own.size for own in text.texts), strict=True))
    assert (sizes["play"], sizes["own"]) == (1_115_394, 402)
    # Of a run that is read on another machine, whose folder may name any file.
    text.spans(split_points(text, corpus.split))
    stranger = Assets((assets,), tmp_path / "other")
    with pytest.raises(UsageError, match="is not the one this run was trained on"):
        corpus.read(stranger.of_stranger([], "0" * 64))
    assert corpus.read(stranger.of_stranger([], *text.digests)).size == text.size


TWO = "data.texts={a: tiny_shakespeare, b: python_docs}"
MISTAKES: dict[str, tuple[list[str], str]] = {
    "no texts": (["data.weights=null"], "data.texts has no value"),
    "one text": (["data.texts={a: python_docs}"], "data: texts names 1: a mix has 2 to 64"),
    "a name": (["data.texts={a: python_docs, b/c: python_docs}"], "data: texts.b/c is no plain"),
    "documents": (["data.texts={a: names, b: python_docs}"], "data.texts.a=names is not one long"),
    "a task": (["data.texts={a: recall, b: python_docs}"], "data.texts.a=recall is not one long"),
    "a file": (
        ["data.texts={a: text, b: python_docs}"],
        "data.texts.a=text has no path of its own",
    ),
    "a mix": (["data.texts={a: mix, b: python_docs}"], "data.texts.a=mix has no path of its own"),
    "a weight of none": (
        [TWO, "data.weights={a: 0.5, c: 0.5}"],
        "data: weights and texts should have the same names, unlike b, c",
    ),
    "a sum": ([TWO, "data.weights={a: 0.5, b: 0.6}"], "must be positive shares that add up to 1"),
    "negative": ([TWO, "data.weights={a: -1, b: 2}"], "must be positive shares that add up to 1"),
    "zero": ([TWO, "data.weights={a: 0, b: 1}"], "must be positive shares that add up to 1"),
    "NaN": ([TWO, "data.weights={a: nan, b: 1}"], "nan"),
    "words": ([TWO, "data.weights={a: some, b: 1}"], "'b': 1} should be a group"),
    "counts": (
        [TWO, "data.weights={a: 0.5, b: 0.5}", "model=ngram"],
        "model=ngram counts every train text once: take data.weights=null",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_said_in_one_line(mistake: str) -> None:
    overrides, message = MISTAKES[mistake]
    with pytest.raises(UsageError) as caught:
        check_settings(read_settings(compose(["data=mix", *overrides], known=small_runs.FILES)))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_path_means_the_same_in_another_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files(tmp_path)
    monkeypatch.chdir(tmp_path)
    typed = ["data=mix", "data.texts={low: low.txt, all: '*.txt', docs: python_docs, none: no.txt}"]
    assert read_settings(compose(typed, known=small_runs.FILES)).data["texts"] == {
        "low": str(tmp_path / "low.txt"),
        "all": str(tmp_path / "*.txt"),
        "docs": "python_docs",
        "none": "no.txt",
    }


def test_a_text_that_is_not_there_is_named(tmp_path: Path) -> None:
    """When it is read: a run can be sampled where its text is not."""
    corpus = Mix({"a": "tiny_shakespere", "b": "python_docs"}, SHARES)
    message = r"^data.texts.a=tiny_shakespere is no file, .* Did you mean tiny_shakespeare\?$"
    with pytest.raises(UsageError, match=message):
        corpus.read(Assets((), tmp_path))


def test_a_text_that_changes_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While it is read for the second time."""
    fit = Characters.fit

    def fitting(self: Characters, train: Iterable[str]) -> None:
        (tmp_path / "few.txt").write_bytes(TEXTS["few"].upper())
        fit(self, train)

    monkeypatch.setattr(Characters, "fit", fitting)
    with pytest.raises(RunFailure, match=r"^a text of the mix \(low, high, few\) changed while"):
        mixed(tmp_path, Characters())


def test_a_short_text_is_named(tmp_path: Path) -> None:
    dataset = mixed(tmp_path, Bytes())
    with pytest.raises(UsageError, match=r"^the val split of data.texts.few has 31 tokens of 31 b"):
        require_length(dataset, 31)
    with pytest.raises(UsageError, match=r"^eval.part: a mix is scored on all of its texts"):
        dataset.with_part_of_validation(0.5)
