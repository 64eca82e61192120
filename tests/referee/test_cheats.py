"""Every cheat is seen by the check that is named with it, and an honest model passes all checks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.common.errors import RunFailure
from harness.data.corpus import Text
from harness.data.dataset import Dataset
from harness.data.encoded import Split
from harness.referee import verify
from harness.referee.certify import tokens_cover
from harness.referee.process import learnt_again
from harness.referee.verify import verify_model
from harness.runs.certificate import Certificate
from tests.referee.cheats import tokenizers
from tests.referee.cheats.models import CAUGHT_BY
from tests.small_runs import settings
from zoo.gpt import GPT
from zoo.mlp import MLP
from zoo.recurrent import GRU

SMALL: dict[type, dict[str, Any]] = {
    GPT: {"block_size": 64, "n_layer": 1, "n_head": 2, "n_embd": 8, "tie_weights": False},
    GRU: {"n_layer": 1, "n_embd": 8, "n_hidden": 8},
    MLP: {"context": 5, "n_layer": 1, "n_embd": 8, "n_hidden": 8},
}


def certificate(cls: type, folder: Path, complete: bool = False) -> Certificate:
    base = next(kind for kind in SMALL if issubclass(cls, kind))
    precision = "bf16" if cls.__name__ == "HalfPrecision" else "fp32"
    asked = settings(folder, "model=gpt", "train.seq_len=64", "trust=[tests]", "eval.batch_size=8")
    node = {"_target_": f"{cls.__module__}.{cls.__qualname__}"} | SMALL[base]
    asked = asked.replace(model=node, precision=precision)
    return verify_model(asked, complete=complete, device="cpu")


@pytest.fixture(autouse=True)
def _short_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify, "TARGETS", 400)
    monkeypatch.setattr(verify, "SECONDS", 0.1)


@pytest.mark.parametrize("cheat", CAUGHT_BY, ids=lambda cheat: cheat.__name__)
def test_a_cheat_is_caught(cheat: type, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check = CAUGHT_BY[cheat]
    if check == "sequential":  # too seldom for a short text
        monkeypatch.setattr(verify, "TARGETS", 3000)
    if check not in ("cached", "block_size", "receptive_field"):
        monkeypatch.setattr(verify, "of_class", lambda *arguments: ())
    found = certificate(cheat, tmp_path, complete=check == "sequential")
    assert check in [failed.name for failed in found.failed]


@pytest.mark.parametrize("honest", SMALL, ids=lambda cls: cls.__name__)
def test_an_honest_model_passes_all(honest: type, tmp_path: Path) -> None:
    assert certificate(honest, tmp_path).failed == []


def test_every_cheat_is_listed() -> None:
    assert len(CAUGHT_BY) + 3 >= 25


def dataset(tokenizer: tokenizers.Bytes) -> Dataset:
    text = "To be, or not to be: that is the Question.\n" * 9
    ids = tokenizer.encode(text)
    part = Split(ids, len(text), {})
    return Dataset(part, part, part, tokenizer, "", Text(text.encode() * 3), ())


@pytest.mark.parametrize(
    ("cheat", "words"),
    [
        (tokenizers.Bytes, None),
        (tokenizers.LowerCasing, "its tokens are not the text"),
        (tokenizers.ClaimsMoreBytes, "claims 2 bytes for id 101"),
    ],
)
def test_tokens_are_the_text(cheat: type[tokenizers.Bytes], words: str | None) -> None:
    data = dataset(cheat())
    assert data.test is not None
    found = tokens_cover(data, data.test, data.tokenizer)
    assert found.result == ("failed" if words else "passed")
    assert words is None or words in found.words


def test_what_is_learnt_on_test_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a process that can't open the text."""
    text = tmp_path / "corpus.txt"
    text.write_text("train train test test")
    monkeypatch.setenv("TEXT", str(text))
    asked = settings(tmp_path / "run", "trust=[tests]")
    asked = asked.replace(tokenizer={"_target_": f"{tokenizers.__name__}.LearntOnTest"})
    with pytest.raises(RunFailure, match=r"opens .*corpus\.txt"):
        learnt_again(tmp_path / "run", asked, ["train train"])
    assert np.all(tokenizers.Bytes().token_bytes == 1)
