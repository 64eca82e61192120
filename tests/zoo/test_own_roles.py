"""Roles of modules of one's own: experts in stacked weights, and marks."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn

from harness import groups as groups_command
from harness.cli.hydra_app import compose
from harness.common.errors import UsageError
from harness.config.keys import names_in_group
from harness.config.settings import read_settings
from harness.training.max_norm import apply_max_norm, max_norm_weights
from harness.training.muon import Muon
from harness.training.optim import build_optimizer, state_size
from harness.training.parameter_groups import parameter_groups, unmarked_line
from tests.small_runs import SMALL, TEXT, trace, train
from zoo import roles as zoo_roles
from zoo.initialization import initialize
from zoo.roles import LINEAR, Role, matrices, roles

# Modules of one's own


class Experts(nn.Module):
    """A stack of maps, stored (in, out), a bias of each, and a mix of which nobody knows."""

    parameter_roles: ClassVar = {
        "weight": Role(matrix=(2, 1), decay=True),
        "bias": Role(),
        "absent": LINEAR,
    }

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, 8, 4))
        self.bias = nn.Parameter(torch.randn(3, 4))
        self.mix = nn.Parameter(torch.randn(1, 1, 8))
        self.absent = None


def moved(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """How far a step takes each parameter."""
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    return {name: before[name] - p.detach() for name, p in model.named_parameters()}


def test_each_expert_is_orthogonalized_by_itself() -> None:
    """By torch's Muon, alone; and what is unmarked is AdamW's, without decay."""
    torch.manual_seed(0)
    model = Experts()
    weights, biases = model.weight.detach().clone(), model.bias.detach().clone()
    found = parameter_groups(model, lr=0.1, lr_of={}, weight_decay=0.5)
    steps = moved(model, Muon(found, lr=0.1, weight_decay=0.5))
    assert model.weight.grad is not None
    for expert in range(3):
        alone = nn.Parameter(weights[expert].clone())
        alone.grad = model.weight.grad[expert].clone()
        torch.optim.Muon([alone], 0.1, 0.5, 0.95, adjust_lr_fn="match_rms_adamw").step()
        assert torch.equal(model.weight[expert], alone)
    whole = nn.Parameter(weights.flatten(1))
    whole.grad = model.weight.grad.flatten(1)
    torch.optim.Muon([whole], 0.1, 0.5, 0.95, adjust_lr_fn="match_rms_adamw").step()
    assert not torch.allclose(model.weight.flatten(1), whole, atol=1e-3)
    for name in ("bias", "mix"):
        sign = dict(model.named_parameters())[name].grad.sign()  # type: ignore[union-attr]
        torch.testing.assert_close(steps[name], 0.1 * sign, rtol=1e-3, atol=1e-4)
    assert not torch.equal(biases, model.bias)
    assert unmarked_line(model) == (
        "1 unmarked parameters, not decayed nor orthogonalized (zoo/roles.py): mix"
    )


def test_a_mark_survives_what_happens_to_modules() -> None:
    with torch.device("meta"):
        empty = Experts()
    for model in (Experts().double(), copy.deepcopy(Experts()), empty.to_empty(device="cpu")):
        assert roles(nn.ModuleList([model]))["0.weight"] == Role(matrix=(2, 1), decay=True)


@pytest.mark.parametrize(
    ("marks", "message"),
    [
        ({"wieght": LINEAR}, "there is no part.wieght"),
        ({"weight": LINEAR}, r"matrix=\(0, 1\) are not the last axes of part.weight, which has 3"),
        ({"weight": Role(matrix=(1, 3))}, "are not the last axes"),
        ({"weight": Role(matrix=(2,))}, "are not the last axes"),
        ({"mix": Role(matrix=(2, 2))}, "are not the last axes"),
    ],
)
def test_a_mark_that_does_not_fit_is_refused(marks: dict[str, Role], message: str) -> None:
    model = Experts()
    vars(model)["parameter_roles"] = marks
    with pytest.raises(ValueError, match=message):
        roles(nn.ModuleDict({"part": model}))


def test_torch_s_other_modules() -> None:
    model = nn.ModuleDict(
        {
            "attention": nn.MultiheadAttention(8, 2, add_bias_kv=True, kdim=4),
            "cell": nn.LSTMCell(8, 8),
            "projected": nn.LSTM(8, 8, proj_size=4, bidirectional=True),
            "bag": nn.EmbeddingBag(5, 8),
            "image": nn.Conv2d(8, 8, 3),
            "up": nn.ConvTranspose1d(8, 4, 3),
            "norm": nn.LayerNorm((4, 8)),
            "bilinear": nn.Bilinear(8, 8, 8),
        }
    )
    known = roles(model)
    decayed = {name for name, role in known.items() if role and role.decay}
    assert decayed == {
        *(f"attention.{letter}_proj_weight" for letter in "qkv"),
        *("attention.out_proj.weight", "cell.weight_ih", "cell.weight_hh"),
        *(
            f"projected.weight_{part}_l0{way}"
            for part in ("ih", "hh", "hr")
            for way in ("", "_reverse")
        ),
        *("image.weight", "up.weight"),
    }
    assert {name for name, role in known.items() if role and role.embedding} == {"bag.weight"}
    assert {name for name, role in known.items() if role is None} == {"bilinear.weight"}


def test_a_head_that_is_first_to_own_an_embedding() -> None:
    """Whichever of the two comes first, it is an embedding, and decayed as a head is."""
    model = nn.ModuleDict({"head": nn.Linear(4, 7, bias=False), "table": nn.Embedding(7, 4)})
    model["head"].weight = model["table"].weight
    role = roles(model)["head.weight"]
    assert role is not None
    assert role.embedding
    (group,) = parameter_groups(model, 0.1, {}, 0.5)
    assert (group["weight_decay"], group["hidden"]) == (0.5, False)


# Others who ask


def test_max_norm_knows_which_axis_is_the_units() -> None:
    model = Experts()
    with pytest.raises(UsageError, match="the input axes of mix are not known"):
        max_norm_weights(model)
    del model.mix
    apply_max_norm(max_norm_weights(model), 0.5)
    assert model.weight.norm(dim=1).max() <= 0.5001  # (experts, in, out)
    assert model.weight.norm(dim=2).max() > 0.51


@pytest.mark.parametrize("shape", [(50, 30), (40, 20, 3)])
def test_max_norm_of_a_kernel_is_that_of_its_matrix(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    weight = nn.Parameter(torch.randn(shape))
    flat = weight.detach().flatten(1).clone()
    limit = flat.norm(dim=1).median().item()
    apply_max_norm([(weight, Role(matrix=tuple(range(len(shape)))))], limit)
    assert torch.equal(weight.flatten(1), flat.renorm(2, 0, limit))


def test_a_scheme_draws_each_matrix_by_its_own_fans() -> None:
    """He's deviation is √(2 / fan in), whichever way the weight is stored and stacked."""
    model = Experts()
    del model.mix
    model.weight = nn.Parameter(torch.zeros(3, 400, 100))
    bias = model.bias.detach().clone()
    torch.manual_seed(0)
    initialize(model, "kaiming")
    assert model.weight.std(dim=(1, 2)).tolist() == pytest.approx([(2 / 400) ** 0.5] * 3, rel=0.02)
    assert torch.equal(model.bias, bias)  # marked as what it is not: a bias that begins at zero
    assert [tuple(w.shape) for w in matrices(model.weight, Role(matrix=(2, 1)))] == [(100, 400)] * 3


@pytest.mark.parametrize("optimizer", names_in_group("optimizer"))
def test_the_state_of_stacked_weights_is_counted(optimizer: str) -> None:
    settings = read_settings(compose([f"optimizer={optimizer}"]))
    model = Experts()
    chosen = build_optimizer(settings, model)
    moved(model, chosen)
    kept = torch.utils._pytree.tree_leaves(chosen.state_dict())
    tensors = [each for each in kept if isinstance(each, Tensor) and each.numel() > 1]
    assert state_size(settings, model) == sum(each.numel() for each in tensors)


# From the command line


EXPERTS = (
    "model=hf", "model.config.model_type=mixtral", "model.config.hidden_size=16",
    "model.config.num_hidden_layers=1", "+model.config.num_attention_heads=2",
    "+model.config.num_key_value_heads=1", "+model.config.intermediate_size=8",
    "+model.config.num_local_experts=3", "optimizer=muon",
)  # fmt: skip
UNMARKED = ("gate.weight", "experts.gate_up_proj", "experts.down_proj")


def test_stacked_experts_resume_bit_for_bit(tmp_path: Path) -> None:
    chosen = (*EXPERTS, "checkpoint.every=4", "eval.every=100", "observe=full", "observe.every=3")
    assert train(tmp_path / "a", *chosen) == 0
    assert "unmarked" not in (tmp_path / "a/run/train.log").read_text()
    before = trace(tmp_path / "a")
    (tmp_path / "a/run/checkpoints/step-00000008.pt").unlink()
    path = tmp_path / "a/run/summary.json"
    path.write_text(path.read_text().replace("finished", "running"))
    train(tmp_path / "a", *chosen, "resume=true")
    assert trace(tmp_path / "a") == before


def test_training_says_what_is_unmarked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(zoo_roles.LIBRARIES, "transformers", {})
    assert train(tmp_path / "a", *EXPERTS, "train.steps=1") == 0
    names = ", ".join(f"body.layers.*.mlp.{name}" for name in UNMARKED)
    log = (tmp_path / "a/run/train.log").read_text()
    assert f"3 unmarked parameters, not decayed nor orthogonalized (zoo/roles.py): {names}" in log


def test_a_command_prints_the_groups(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "corpus.txt").write_text(TEXT)
    own = (f"data.path={tmp_path}/corpus.txt", f"cache={tmp_path}/cache", "tokenizer=bytes")
    assert groups_command.task(compose([*SMALL, *own, *EXPERTS])) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["body.layers.*.mlp.experts.down_proj", "3×16×8", "1", "384"] in lines
    assert ["head.weight", "256×16", "1", "4,096"] in lines
    heads = [" ".join(line) for line in lines if "peak" in line]
    # The experts; the head is decayed, and is AdamW's.
    assert [head.partition(",")[0] for head in heads] == ["AdamW", "Muon", "Muon", "AdamW"]
    assert "Muon, each of a stack, peak rate 0.003, decay 0.1 2 1,152" in heads
    assert "AdamW, peak rate 0.003, decay 0.1 1 4,096" in heads
