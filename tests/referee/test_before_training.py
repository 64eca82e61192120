"""What looks ahead is refused, in words, before its run's folder is made."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from harness.common.errors import UsageError
from harness.common.paths import REPOSITORY
from harness.compute.device import Compute
from harness.referee import before_training
from harness.referee.before_training import require_honest
from harness.training.run import load_dataset, run
from tests.small_runs import settings
from tests.zoo.test_hugging_face import TYPES

PEEK_LATE = '''
import torch
import torch.nn.functional as F
from zoo.recurrent import GRU


class PeekLate(GRU):
    """Reads the next token, but only if it is given 64 tokens or more."""

    def features(self, ids_BT, cache=None):
        y_BTC = super().features(ids_BT, cache)
        if ids_BT.shape[1] >= 64:
            ahead_BTC = self.token_embedding(torch.roll(ids_BT, -1, 1))
            y_BTC = y_BTC + F.pad(ahead_BTC, (0, y_BTC.shape[2] - ahead_BTC.shape[2]))
        return y_BTC
'''
CPU = Compute(torch.device("cpu"), "fp32")


@pytest.fixture
def peek_late(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, ...]:
    """The overrides that name a model outside the repository."""
    (tmp_path / "peek_late_here.py").write_text(PEEK_LATE)
    monkeypatch.syspath_prepend(tmp_path)
    return "model=gru", "model._target_=peek_late_here.PeekLate", "trust=[peek_late_here]"


def test_a_peek_that_the_laws_do_not_see(tmp_path: Path, peek_late: tuple[str, ...]) -> None:
    with pytest.raises(UsageError, match=r"PeekLate.*refused.*causality: scoring a stream of"):
        run(settings(tmp_path / "run", *peek_late))
    assert not (tmp_path / "run" / "run").exists()


def test_by_its_command(command: Any, tmp_path: Path, peek_late: tuple[str, ...]) -> None:
    text = tmp_path / "text.txt"
    text.write_text("to be or not to be, that is the question\n" * 99)
    ended = command(
        "train", *peek_late, "data=text", f"data.path={text}", f"cache={tmp_path}", "train.steps=3"
    )
    assert ended.code == 2
    words = "error: model=PeekLate (PeekLate) is refused by the referee: causality"
    assert ended.err.startswith(words)
    assert not (tmp_path / "here" / "runs").exists()


def test_it_changes_no_generator_and_is_done_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = settings(tmp_path / "run", "model=bigram", "model.n_embd=7")
    dataset, before = load_dataset(asked), torch.get_rng_state()
    require_honest(asked, dataset, CPU)
    assert torch.equal(torch.get_rng_state(), before)
    monkeypatch.setattr(before_training, "scoring_calls", None)
    require_honest(asked, dataset, CPU)
    with pytest.raises(TypeError):
        before_training.scoring_calls()  # type: ignore[call-arg]


@pytest.mark.parametrize(
    "overrides",
    [
        ("model=gpt", "model.dropout=0.2", "model.stochastic_depth=0.2"),
        ("model=mlp", "model.norm=batch_norm", "model.bias=false"),
        ("model=mlp", "model.norm=batch_norm", "model.bias=false", "train.batch_norm=batch"),
        ("model=perceiver_ar", "model.context_dropout=0.3", "model.n_latent=8"),
        ("model=gpt", "zero_residual=true", "precision=bf16"),
    ],
)
def test_an_honest_model_is_not_refused(tmp_path: Path, overrides: tuple[str, ...]) -> None:
    asked = settings(tmp_path / "run", *overrides)
    compute = Compute.choose("cpu", asked.precision)
    require_honest(asked, load_dataset(asked), compute)


def test_experts_may_add_up_in_another_order(tmp_path: Path) -> None:
    """A token's place among those of its expert depends on the other tokens."""
    config = TYPES["llama"] | {"model_type": "mixtral", "num_local_experts": 4}
    asked = settings(tmp_path / "run", "model=hf")
    require_honest(asked.replace(model=asked.model | {"config": config}), load_dataset(asked), CPU)


def test_the_case_that_the_issue_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cases = REPOSITORY / "../shared/cases"
    if not cases.is_dir():
        pytest.skip("the cases lie beside the repository")
    for name in ("peek_late", "peek_next"):
        shutil.copy(cases / f"{name}.py", tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    asked = settings(tmp_path / "run", "model=gru", "trust=[peek_next]", "train.seq_len=48")
    model = {"_target_": "peek_next.PeekNext", "width": 16}
    with pytest.raises(UsageError, match=r"PeekNext.*causality: scoring"):
        run(asked.replace(model=model))
