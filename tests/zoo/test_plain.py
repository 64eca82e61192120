"""Any torch module from ids to logits: one like nanoGPT's under all laws, trained and sampled."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from harness.common.errors import UsageError
from harness.compute import costs
from harness.config.build import build_object
from tests.conftest import Ended
from tests.zoo.laws import LAWS
from tests.zoo_models import VOCAB, randomize
from zoo.language_model import LanguageModel
from zoo.plain import Plain

BLOCK = 18
HERE = __name__
NODE = {"_target_": "zoo.plain.Plain", "module": f"{HERE}.Net", "block_size": BLOCK, "n_embd": 16}


class Attention(nn.Module):
    def __init__(self, n_embd: int, n_head: int) -> None:
        super().__init__()
        self.n_head = n_head
        self.qkv = nn.Linear(n_embd, 3 * n_embd)
        self.project = nn.Linear(n_embd, n_embd)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (
            part.unflatten(-1, (self.n_head, -1)).transpose(1, 2)
            for part in self.qkv(x).chunk(3, dim=-1)
        )
        y = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.project(y.transpose(1, 2).flatten(2))


class Net(nn.Module):
    """A transformer of one layer that knows nothing of the zoo."""

    def __init__(
        self, vocab_size: int, block_size: int, n_embd: int = 16, n_head: int = 2, drop: float = 0.0
    ) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocab_size, n_embd)
        self.positions = nn.Embedding(block_size, n_embd)
        self.drop = nn.Dropout(drop)
        self.norms = nn.ModuleList(nn.LayerNorm(n_embd) for _ in range(3))
        self.attention = Attention(n_embd, n_head)
        self.mlp = nn.Sequential(
            nn.Linear(n_embd, 4 * n_embd), nn.GELU(), nn.Linear(4 * n_embd, n_embd)
        )
        self.lm_head = nn.Linear(n_embd, vocab_size, bias=False)

    def forward(self, ids: Tensor) -> Tensor:
        positions = torch.arange(ids.shape[1], device=ids.device)
        x = self.drop(self.tokens(ids) + self.positions(positions))
        x = x + self.attention(self.norms[0](x))
        x = x + self.mlp(self.norms[1](x))
        return self.lm_head(self.norms[2](x))


class Pair(Net):
    """As nanoGPT returns them: logits and loss."""

    def forward(self, ids: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        return super().forward(ids), None


class Last(Net):
    """The last position alone."""

    def forward(self, ids: Tensor) -> Tensor:
        return super().forward(ids)[:, -1:]


class Fixed(Net):
    """Of a vocabulary that does not follow the data."""

    def __init__(self) -> None:
        super().__init__(7, BLOCK)


def make(random: bool = True) -> LanguageModel:
    torch.manual_seed(0)
    model = build(NODE).double().eval()
    return randomize(model) if random else model


def build(node: dict[str, object], trust: tuple[str, ...] = (HERE,)) -> LanguageModel:
    return build_object(dict(node), LanguageModel, "model", trust, vocab_size=VOCAB)


@pytest.mark.parametrize("law", LAWS)
def test_it_keeps_the_laws(law: str) -> None:
    LAWS[law](make)


def test_a_module_that_looks_ahead_breaks_the_law() -> None:
    """The negative control: the wrapper hides nothing."""

    def broken(random: bool = True) -> LanguageModel:
        model = make(random)
        inner = model.module.forward
        model.module.forward = lambda ids: inner(ids) + inner(ids).mean(1, keepdim=True)
        return model

    for law in ("causality", "split"):
        with pytest.raises(AssertionError):
            LAWS[law](broken)


def test_its_costs_are_counted() -> None:
    C, V, T = 16, VOCAB, BLOCK
    linear = 12 * C * C + C * V
    attention = 2 * T * C  # of one position: queries with keys, weights with values
    counted = costs.forward_flops(lambda: build(NODE), T)
    assert counted == pytest.approx(2 * T * (linear + attention), rel=0.01)
    total = costs.parameters(build(NODE))["total"]
    assert total == 2 * V * C + T * C + 12 * C * C + 9 * C + 3 * 2 * C


def test_what_is_no_logits_is_refused_in_words() -> None:
    for name, message in (
        ("Pair", "Pair returns a tuple; from ids"),
        ("Last", f"Last returns (1, 1, {VOCAB}) for ids (1, 2)"),
    ):
        with pytest.raises(UsageError, match="model: ") as refused:
            build(NODE | {"module": f"{HERE}.{name}"})
        assert message in str(refused.value)
    fixed = {key: NODE[key] for key in ("_target_", "block_size")}
    with pytest.raises(UsageError, match=r"Fixed returns \(1, 2, 7\)"):
        build(fixed | {"module": f"{HERE}.Fixed"})


def test_building_draws_no_random_numbers_and_keeps_the_mode() -> None:
    torch.manual_seed(0)
    plain = Net(VOCAB, BLOCK, drop=0.5)
    expected = torch.rand(3)
    torch.manual_seed(0)
    wrapped = Plain(VOCAB, BLOCK, Net, drop=0.5)
    assert torch.equal(torch.rand(3), expected)
    assert wrapped.training
    assert wrapped.module.drop.training
    assert torch.equal(wrapped.module.lm_head.weight, plain.lm_head.weight)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_embed": 8}, "there is no setting model.n_embed: Net does not have it. Did you mean"),
        ({"n_embd": "wide"}, "model.n_embd=wide should be a whole number"),
        ({"vocab_size": 5}, "model.vocab_size can't be set: it follows from the data"),
        ({"block_size": 0}, "model: block_size=0 must be at least 1"),
        ({"module": "torch.nn.Linear"}, "model.module=torch.nn.Linear lies outside the trusted"),
        ({"module": "os.system"}, "model.module=os.system lies outside the trusted packages"),
        ({"module": 5}, "model.module=5 lies outside the trusted packages"),
        ({"module": f"{HERE}.nn"}, "is not a concrete Module"),
        ({"module": f"{HERE}.nn.Linear"}, "does not exist"),
        ({"module": f"{HERE}.UsageError"}, "is not a concrete Module"),
        ({"module": f"{HERE}.Nothing"}, f"model.module={HERE}.Nothing does not exist"),
    ],
)
def test_a_wrong_setting_is_one_line(change: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError) as refused:
        build(NODE | change)
    assert message in str(refused.value)


def test_a_plain_module_in_the_model_s_place_is_answered_with_the_wrapper() -> None:
    with pytest.raises(UsageError) as refused:
        build({"_target_": f"{HERE}.Net"})
    assert str(refused.value) == (
        f"model._target_={HERE}.Net is not a concrete LanguageModel; a plain torch module: "
        f"model._target_=zoo.plain.Plain model.module={HERE}.Net"
    )
    for other in ("UsageError", "LanguageModel", "build"):
        with pytest.raises(UsageError, match=r"is not a concrete LanguageModel$"):
            build({"_target_": f"{HERE}.{other}"})


@pytest.mark.parametrize("name", ["block_size", "module"])
def test_what_it_needs_must_be_given(name: str) -> None:
    with pytest.raises(UsageError, match=f"model.{name} has no value"):
        build({key: value for key, value in NODE.items() if key != name})


def test_it_trains_and_samples_and_a_strangers_is_not_imported(
    train_run: Callable[..., Path], command: Callable[..., Ended], tmp_path: Path
) -> None:
    (tmp_path / "here" / "wrapped_here.py").write_text(
        f"import pathlib\npathlib.Path({str(tmp_path / 'mark')!r}).touch()\n"
        f"from {HERE} import Net\nclass Mine(Net): ...\n"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path / "here")
        run = train_run(
            "model._target_=zoo.plain.Plain", "model.module=wrapped_here.Mine",
            "model.block_size=16", "model.n_embd=8", "trust=[wrapped_here]", "train.steps=2",
        )  # fmt: skip
    assert "model: Mine" in (run / "config.yaml").read_text()
    del sys.modules["wrapped_here"]
    (tmp_path / "mark").unlink()
    # As a stranger's, in whose folder one stands: his word alone imports nothing.
    for tool in ("evaluate", "sample"):
        ended = command(tool, run)
        assert (ended.code, ended.err.count("\n")) == (2, 1)
        assert "model.module=wrapped_here.Mine lies outside the trusted packages" in ended.err
        assert not (tmp_path / "mark").exists()
    assert command("sample", run, "--trust", "wrapped_here", "--tokens", "30").code == 0
    assert sys.modules.pop("wrapped_here")
