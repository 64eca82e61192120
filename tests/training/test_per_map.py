"""Muon of joint maps, such as each head's queries, keys and values, by themselves."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from harness import groups as groups_command
from harness.cli.hydra_app import compose
from harness.compute.meta import meta_model
from harness.config.keys import names_in_group
from harness.config.model import build_model
from harness.config.settings import read_settings
from harness.training.muon import Muon
from harness.training.optim import build_optimizer
from harness.training.parameter_groups import group_by_pattern, parameter_groups
from tests.small_runs import SMALL, TEXT
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


EACH, ALL = ({0}, {1}, {2}, {3}), {0, 1, 2, 3}
# The joint map of a model's first such block, and the heads that each of its maps moves.
MOVED: dict[str, tuple[str, Sequence[set[int]]]] = {
    "gpt": ("blocks.0.attention.qkv", EACH * 3),
    "llama": ("blocks.0.attention.qkv", (*EACH, *({0, 1}, {2, 3}) * 2)),
    "ladder": ("blocks.0.attention.qkv", EACH * 3),
    "perceiver_ar": ("read.key_value", EACH * 2),
    "mamba2": ("blocks.0.expand", (*EACH * 2, ALL, ALL, ALL)),
    "gated_deltanet": ("blocks.0.mixer.expand", (*EACH[:3] * 4, {0, 1, 2}, {0, 1, 2})),
    "mlstm": ("blocks.0.expand", EACH * 4),
}


@pytest.mark.parametrize("name", MOVED)
def test_each_map_moves_its_own_head(name: str) -> None:
    """Other weights in one map, as marked, change what that head gives to the block's last map."""
    path, expected = MOVED[name]
    torch.manual_seed(0)
    model = build_model(read_settings(compose([f"model={name}"])), 65).double().eval()
    layer, block = (model.get_submodule(each) for each in (path, path.rpartition(".")[0]))
    if name == "mamba2":
        block.norm = nn.Identity()  # it mixes the heads
    given: list[Tensor] = []
    block.projection.register_forward_pre_hook(lambda module, inputs: given.append(inputs[0]))
    ids_BT = torch.randint(65, (2, 9))
    weights = layer.weight.detach()
    maps = layer.parameter_roles["weight"].maps
    assert len(maps) == len(expected)
    for number, heads in enumerate(expected):
        before = weights.clone()
        weights.split(maps)[number].normal_()
        model(ids_BT)
        weights.copy_(before)
        model(ids_BT)
        changed, plain = (x.unflatten(-1, (len(set.union(*expected)), -1)) for x in given[-2:])
        differs = (changed - plain).abs().amax(dim=(0, 1, 3)) > 1e-9
        assert {int(head) for head in differs.nonzero()} == heads


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
        (Role((0, 1), maps=(4.0, 4.0)), "are not the 8 outputs"),  # type: ignore[arg-type]
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


def test_a_mark_keeps_others_and_takes_subclasses() -> None:
    class Own(nn.Linear):
        """As torch's."""

    layer = Own(6, 8)
    vars(layer)["parameter_roles"] = {"bias": Role()}
    found = roles(joint(layer, [4, 4]))
    assert found == {"weight": Role((0, 1), decay=True, maps=(4, 4)), "bias": Role()}


def test_a_kernel_that_lies_otherwise_in_memory_is_refused() -> None:
    """Muon moves views; a copy would never train."""
    layer = joint(nn.Conv1d(6, 8, 3), [4, 4])
    layer.weight = nn.Parameter(layer.weight.detach().permute(0, 2, 1).contiguous().mT)
    groups = parameter_groups(layer, lr=0.1, lr_of={}, weight_decay=0.5)
    with pytest.raises(RuntimeError, match="view"):
        Muon(groups, lr=0.1, per_map=True)
