"""Cheats by someone who had not read the checks: tokenizers, and models of finished runs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.common.errors import RunFailure
from harness.config.settings import Settings
from harness.data.corpus import Text
from harness.data.dataset import Dataset
from harness.data.encoded import Split
from harness.referee import verify
from harness.referee.certify import as_saved, tokens_cover
from harness.referee.process import learnt_again
from harness.referee.verify import verify_run
from harness.runs import certificate
from harness.training.run import run
from tests.referee.blind import CHEATS, HONEST_TOKENIZERS, TOKENIZER_CHEATS, outside
from tests.referee.blind.text import TEXT
from tests.small_runs import settings
from zoo_tokenizers import Tokenizer

AT, END = 1400, 1700  # where validation and test begin


def asked(name: str, folder: Path) -> Settings:
    cls = (TOKENIZER_CHEATS | HONEST_TOKENIZERS)[name]
    node = {"_target_": f"{cls.__module__}.{cls.__qualname__}"}
    return settings(folder / "run", "trust=[tests]").replace(tokenizer=node)


def dataset(tokenizer: Tokenizer, text: str) -> Dataset:
    tokenizer.fit([text[:AT]])
    parts = []
    for part in (text[:AT], text[AT:END], text[END:]):
        ids, unknown = tokenizer.encode_known(part)
        parts.append(Split(ids, len(part.encode()), dict(unknown)))
    return Dataset(*parts, tokenizer, "", Text(text.encode()), ())


def failures(name: str, folder: Path, text: str) -> Iterator[str]:
    """What a certificate of a run says of the tokenizer."""
    node = asked(name, folder)
    tokenizer = node.build("tokenizer", Tokenizer)
    data = dataset(tokenizer, text)
    for split in (data.train, data.val, data.test):
        assert split is not None
        check = tokens_cover(data, split, as_saved(node, tokenizer))
        if check.result == "failed":
            yield check.words
    try:
        if learnt_again(folder / "run", node, [text[:AT]]) != tokenizer.digest:
            yield "train alone gives another vocabulary"
    except RunFailure as error:
        yield str(error)


CAUGHT_BY = {
    "TwiceTheBytes": "claims 2 bytes for id",
    "WidePieces": "claims 1 bytes for id|its tokens are not the text",
    "LowerCases": "its tokens are not the text",
    "RemembersTheText": "its tokens are not the text",
    "HidesUnknown": "its tokens are not the text",
    "RareIsSpace": "its tokens are not the text",
    "LearntOnTest": r"opens .*corpus\.txt",
    "GrowsWhileEncoding": "bytes for id .*, saved as|its tokens are not the text",
    "FreeStart": "its tokens are not the text",
}


@pytest.mark.parametrize("name", TOKENIZER_CHEATS)
def test_a_blind_tokenizer_is_caught(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "corpus.txt").write_text(TEXT)
    monkeypatch.chdir(tmp_path)
    text = TEXT.replace("k", "", TEXT[:AT].count("k")) if name == "HidesUnknown" else TEXT
    first = next(failures(name, tmp_path, text), "")
    assert re.search(CAUGHT_BY[name], first), first


@pytest.mark.parametrize(
    "name",
    [
        name if name == "Phrases" else pytest.param(name, marks=pytest.mark.long)
        for name in HONEST_TOKENIZERS
    ],
)
def test_an_honest_tokenizer_passes(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert list(failures(name, tmp_path, TEXT)) == []


# Without a run these four pass (test_blind_cheats.py). By whom a run of theirs is caught:
# TrainsOnTest is an ordinary model when it is scored, and nobody sees how it was trained.
BY_TRAINING = {"LaterCalls": True, "ReadsTheCorpus": True, "TrainsOnTest": False, "Alibi": False}
BY_VERIFY = BY_TRAINING | {"Alibi": True}


@pytest.mark.long
@pytest.mark.parametrize("name", BY_TRAINING)
def test_a_run_of_what_escapes_without_one(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outside.ALIBIS.clear()
    monkeypatch.setattr(verify, "SECONDS", 0.1)
    cls = CHEATS[name]
    node = {"_target_": f"{cls.__module__}.{cls.__qualname__}", "width": 16}
    monkeypatch.chdir(tmp_path)  # whose text files it reads
    chosen = settings(tmp_path / "run", "trust=[tests]", "train.steps=220", "eval.every=110")
    assert run(chosen.replace(model=node)) == 0
    folder = tmp_path / "run" / "run"
    found = certificate.read(folder)
    assert found is not None
    assert bool(found.failed) == BY_TRAINING[name], found.words
    anew = verify_run(folder, complete=True, device="cpu", trust=["tests"])
    assert bool(anew.failed) == BY_VERIFY[name], anew.words
