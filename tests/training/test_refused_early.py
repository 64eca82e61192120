"""What can't be trained is refused in one line, before its folder is made; what can be is not."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from harness.common.errors import UsageError
from harness.common.paths import REPOSITORY
from tests.conftest import Ended
from tests.small_runs import summary, trace, train
from tests.waiting import GUARD

MLP = ("model=mlp", "model.norm=batch_norm", "model.bias=false", "model.n_hidden=8")
ODD = {
    "dna": "ACGTTGCAAC" * 300,
    "cjk": "天地玄黃宇宙洪荒" * 100,
    "cr only": "one\rtwo\r" * 300,
    "one character": "a" * 3000,
}


NEEDY = """
import numpy
import torch
from zoo.bigram import Bigram
class Bracket(Bigram):
    def __init__(self, vocab_size: int, how: str):
        super().__init__(vocab_size)
        weight = self.table.weight
        if how == "item":
            self.largest = weight.abs().max().item()
        elif how == "numpy":
            self.mean = numpy.asarray(weight.detach()).mean()
        elif how == "condition" and not (weight == weight).all():
            raise AssertionError("NaN")
        elif how == "elsewhere":
            self.register_buffer("zeros", torch.from_numpy(numpy.zeros(vocab_size, "float32")))
        elif how == "wrong":
            {}["no such key"]
        self.how = how
    def initialize(self, scheme="default", zero_residual=False):
        if self.how == "initialize":
            self.table.weight.sum().item()
        return super().initialize(scheme, zero_residual)
    def features(self, ids_BT, cache=None):
        if self.how == "forward" and ids_BT.min().item() < 0:
            raise ValueError("a negative id")
        features = super().features(ids_BT, cache)
        return features + self.zeros if self.how == "elsewhere" else features
"""


def refused(folder: Path, *overrides: str) -> str:
    with pytest.raises(UsageError) as error:
        train(folder, *overrides)
    assert not (folder / "run").exists()
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("kind", ODD)
def test_a_default_is_no_reason_to_refuse_a_text(
    kind: str, tmp_path: Path, command: Callable[..., Ended]
) -> None:
    """No text of these has a line break, which is the default prompt: train's first token is."""
    (tmp_path / "corpus.txt").write_text(ODD[kind], newline="")
    small = ("data.split=[0.8,0.1,0.1]", "model=bigram", "train.steps=2")
    assert train(tmp_path / "a", *small) == 0
    samples = (tmp_path / "a/run/samples.txt").read_bytes().decode()
    assert re.match(rf"=== step \d+ ===\n{ODD[kind][0]}", samples)
    ended = command("sample", tmp_path / "a/run", "--tokens", 3)
    assert ended.code == 0
    assert "to this tokenizer a line break is nothing" in ended.err
    assert "eval.prompt: character 'Q'" in refused(tmp_path / "b", *small, "eval.prompt=Q")


def test_without_a_compiler_nothing_is_compiled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Callable[..., Ended]
) -> None:
    """Nor where only a few steps are taken."""

    def refuse(function: object) -> Callable[..., None]:
        def compiled(*arguments: object) -> None:
            raise RuntimeError("no C++ compiler\nand 70 lines")

        return compiled

    monkeypatch.setattr(torch, "compile", refuse)
    why = "compile=true: torch.compile does not work here (RuntimeError: no C++ compiler); install"
    assert refused(tmp_path / "a", "model=bigram", "compile=true").startswith(why)
    small = ("data=python_docs", "model=bigram", "device=cpu", "precision=fp32", "train.steps=1")
    ended = command("bench", *small, "compile=true")
    assert (ended.code, ended.err[: len(why) + 7]) == (2, f"error: {why}")
    assert train(tmp_path / "a", "model=bigram", "train.steps=1") == 0


@pytest.mark.long
def test_a_real_machine_without_a_compiler(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "harness.train", "data=python_docs", "model=bigram", "compile=true",
         "device=cpu", "train.steps=1", f"run_dir={tmp_path / 'run'}"],
        cwd=REPOSITORY, capture_output=True, text=True, timeout=GUARD,
        env=os.environ | {"CXX": "/none", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "compiled")},
    )  # fmt: skip
    assert ended.returncode == 2
    assert ended.stderr.startswith("error: compile=true: torch.compile does not work here (")
    assert len(ended.stderr.splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_batch_normalization_of_one_position(tmp_path: Path) -> None:
    one = ("train.batch_size=1", "train.seq_len=1")
    said = refused(tmp_path / "a", *MLP, *one)
    assert said.startswith("train.batch_size=1 with train.seq_len=1: batch normalization needs")
    for more in (("train.batch_size=2", one[1]), (one[0], "train.seq_len=2")):
        assert train(tmp_path / more[0] / more[1], *MLP, *more, "train.steps=1") == 0
    assert train(tmp_path / "b", "model=mlp", "model.n_hidden=8", *one, "train.steps=1") == 0


@pytest.fixture
def needy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, ...]]:
    """A user's own model, which needs values where the meta device has none."""
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "needy_models.py").write_text(NEEDY)
    monkeypatch.syspath_prepend(str(tmp_path / "own"))
    yield ("model._target_=needy_models.Bracket", "trust=[needy_models]", "train.steps=2")
    sys.modules.pop("needy_models", None)


@pytest.mark.parametrize(
    "how", ["item", "numpy", "condition", "elsewhere", "initialize", "forward"]
)
def test_a_model_that_needs_values_is_trained_and_counted(
    how: str, needy: tuple[str, ...], tmp_path: Path, command: Callable[..., Ended]
) -> None:
    """As one that needs none."""
    assert train(tmp_path / "a", *needy, f"model.how={how}") == 0
    assert train(tmp_path / "plain", *needy, "model.how=no") == 0
    assert trace(tmp_path / "a") == trace(tmp_path / "plain")
    own, plain = summary(tmp_path / "a"), summary(tmp_path / "plain")
    for key in ("parameters", "flops_per_token", "test"):
        assert own[key] == plain[key]
    ended = command("evaluate", tmp_path / "a" / "run", "--trust", "needy_models")
    assert (ended.code, ended.err) == (0, "")


def test_a_models_own_fault_is_its_own(needy: tuple[str, ...], tmp_path: Path) -> None:
    """Not one of the meta device."""
    with pytest.raises(KeyError, match="no such key") as error:
        train(tmp_path / "a", *needy, "model.how=wrong")
    assert error.value.__context__ is None
