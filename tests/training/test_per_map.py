"""Muon of joint maps, such as each head's queries, keys and values, by themselves."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from harness import groups as groups_command
from harness.cli.hydra_app import compose
from harness.compute.meta import meta_model
from harness.config.keys import names_in_group
from harness.config.settings import read_settings
from harness.training.muon import Muon
from harness.training.optim import build_optimizer
from harness.training.parameter_groups import group_by_pattern, parameter_groups
from tests.small_runs import SMALL, TEXT
from zoo.layers.attention import CausalSelfAttention
from zoo.roles import Role, joint, roles

MAPS = (3, 3, 5, 2, 2, 2, 3)
STEPS = 3


def alone(before: Tensor, gradients: Iterable[Tensor]) -> Tensor:
    """The weight after torch's Muon."""
    weight = nn.Parameter(before.clone())
    optimizer = torch.optim.Muon([weight], 0.1, 0.5, 0.95, adjust_lr_fn="match_rms_adamw")
    for gradient in gradients:
        weight.grad = gradient.clone()
        optimizer.step()
    return weight.detach()


@pytest.mark.parametrize("per_map", [False, True])
def test_each_map_moves_as_by_torch_s_muon_alone(per_map: bool) -> None:
    """Whatever their sizes; a whole matrix of one head's shape is beside them."""
    torch.manual_seed(0)
    model = nn.ModuleDict({"qkv": joint(nn.Linear(7, sum(MAPS)), MAPS), "other": nn.Linear(7, 3)})
    groups = parameter_groups(model, lr=0.1, lr_of={}, weight_decay=0.5)
    optimizer = Muon(groups, lr=0.1, weight_decay=0.5, per_map=per_map)
    before = {name: layer.weight.detach().clone() for name, layer in model.items()}
    gradients: dict[str, list[Tensor]] = {name: [] for name in model}
    for _ in range(STEPS):
        for name, layer in model.items():
            for parameter in layer.parameters():
                parameter.grad = torch.randn_like(parameter)
            gradients[name] += [layer.weight.grad.clone()]
        optimizer.step()
    heads = MAPS if per_map else (sum(MAPS),)
    own = zip(*(gradient.split(heads) for gradient in gradients["qkv"]), strict=True)
    expected = [alone(*each) for each in zip(before["qkv"].split(heads), own, strict=True)]
    assert torch.equal(model["qkv"].weight, torch.cat(expected))
    assert torch.equal(model["other"].weight, alone(before["other"], gradients["other"]))


def test_heads_of_attention_are_its_heads() -> None:
    """Without one head of the values, as marked, its channels are zero, and no others change."""
    torch.manual_seed(0)
    attention = CausalSelfAttention(12, 6, 0.0, bias=False, n_kv_head=3)
    attention.projection = nn.Identity()
    role = roles(attention)["qkv.weight"]
    assert role is not None
    assert role.maps == (2,) * 12
    x_BTC = torch.randn(2, 5, 12)
    before = attention(x_BTC).unflatten(-1, (6, 2))
    for number in range(3):  # each is shared by two heads of queries
        cut = copy.deepcopy(attention)
        cut.qkv.weight.detach().split(role.maps)[9 + number].zero_()
        after = cut(x_BTC).unflatten(-1, (6, 2))
        shared = [2 * number, 2 * number + 1]
        others = [head for head in range(6) if head not in shared]
        assert not after[:, :, shared].any()
        assert torch.equal(after[:, :, others], before[:, :, others])


def test_what_of_the_zoo_is_joint() -> None:
    """Queries, keys and values of attention; of the mixers gates and rates, too; of WaveNet filters
    and gates."""
    attention = (32,) * 12
    blocks = {"blocks.*.attention.qkv.weight": attention}
    four_queries = {"blocks.*.attention.qkv.weight": (32,) * 8}  # two heads of keys, two of values
    mamba = (80, 80, 80, 80, 64, 64, 2)
    expected = {
        **dict.fromkeys(("gpt", "gpt1", "gpt3", "gpt_modern", "gpt_moe"), blocks),
        **dict.fromkeys(("llama", "mistral"), four_queries),
        "ladder": {"blocks.*.attention.qkv.weight": (8,) * 12},
        "megabyte": {
            "global_blocks.*.attention.qkv.weight": attention,
            "local_blocks.*.attention.qkv.weight": attention,
        },
        "spacebyte": {
            "local_blocks.*.attention.qkv.weight": (22,) * 12,
            "global_blocks.*.attention.qkv.weight": attention,
        },
        "perceiver_ar": blocks
        | {"read.query.weight": (32,) * 4, "read.key_value.weight": (32,) * 8},
        "wavenet": {"blocks.*.conv.conv.weight": (96, 96)},
        "mamba2": {"blocks.*.expand.weight": (88,) * 8 + (64, 64, 4)},
        "hnet": {
            "encoder.*.expand.weight": mamba,
            "main.*.attention.qkv.weight": attention,
            "decoder.*.expand.weight": mamba,
        },
        "gated_deltanet": {"blocks.*.mixer.expand.weight": (36,) * 6 + (72,) * 6 + (3, 3)},
        "gated_deltanet_hybrid": {
            "blocks.*.mixer.expand.weight": (24,) * 8 + (48,) * 8 + (4, 4),
            "blocks.*.mixer.attention.qkv.weight": attention,
        },
        "mlstm": {"blocks.*.expand.weight": (16,) * 8 + (32,) * 8},
    }
    for name in names_in_group("model"):
        if name == "hf":
            continue
        model = meta_model(read_settings(compose([f"model={name}"])), 65)
        known = {key: role.maps for key, role in roles(model).items() if role and role.maps}
        found = {each: known[keys[0]] for each, keys in group_by_pattern(known).items()}
        assert found == expected.get(name, {}), name


@pytest.mark.parametrize(
    ("role", "found"),
    [
        (Role((0, 1), maps=(4, 3)), r"maps=\(4, 3\) are not the 8 outputs of part.weight"),
        (Role((0, 1), maps=(9, -1)), "are not the 8 outputs"),
        (Role((1, 0), maps=(4, 4)), "are not the 8 outputs"),
    ],
)
def test_maps_that_do_not_fit_are_refused(role: Role, found: str) -> None:
    layer = nn.Linear(8, 8)
    vars(layer)["parameter_roles"] = {"weight": role}
    with pytest.raises(ValueError, match=found):
        roles(nn.ModuleDict({"part": layer}))


@pytest.mark.parametrize("optimizer", names_in_group("optimizer"))
def test_only_muon_asks_for_maps(optimizer: str) -> None:
    """All others do with a joint map what they do with a plain one."""
    settings = read_settings(compose([f"optimizer={optimizer}"]))
    torch.manual_seed(0)
    several, one = joint(nn.Linear(6, 8), (2, 2, 4)), nn.Linear(6, 8)
    one.load_state_dict(several.state_dict())
    for layer in (several, one):
        torch.manual_seed(1)
        chosen = build_optimizer(settings, layer)
        for _ in range(STEPS):
            for parameter in layer.parameters():
                parameter.grad = torch.randn_like(parameter)
            chosen.step()
    assert torch.equal(several.weight, one.weight) == (optimizer != "muon")
    assert torch.equal(several.bias, one.bias)


def test_a_command_says_what_is_joint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "corpus.txt").write_text(TEXT)
    own = (f"data.path={tmp_path}/corpus.txt", f"cache={tmp_path}/cache", "tokenizer=bytes")
    chosen = [*SMALL, *own, "model=gpt", "model.n_head=2", "model.n_embd=16", "optimizer=muon"]
    row = "blocks.*.attention.qkv.weight"
    for settings, name in (([], f"{row}, each of 6 maps"), (["optimizer.per_map=false"], row)):
        assert groups_command.task(compose([*chosen, *settings])) == 0
        lines = [line.split("  ") for line in capsys.readouterr().out.splitlines()]
        assert name in [part for line in lines for part in line]
