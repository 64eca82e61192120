"""What each parameter is taken for: decayed, orthogonalized, limited, drawn anew, or left alone."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from harness import groups as groups_command
from harness.cli.hydra_app import compose
from harness.common.errors import UsageError
from harness.compute import costs as measure
from harness.config.build import build_object
from harness.config.keys import names_in_group
from harness.config.settings import read_settings
from harness.training.max_norm import apply_max_norm, max_norm_weights
from harness.training.muon import Muon
from harness.training.optim import build_optimizer, state_size
from harness.training.parameter_groups import group_by_pattern, parameter_groups, unmarked_line
from tests.small_runs import SMALL, TEXT, trace, train
from tests.zoo_models import NAMES, node
from zoo import roles as zoo_roles
from zoo.initialization import initialize
from zoo.language_model import LanguageModel
from zoo.roles import LINEAR, Role, matrices, roles

# By model, the closed list of what is decayed: all of it is Muon's, but for the head.
BLOCK = [
    "attention.qkv.weight",
    "attention.projection.weight",
    "feed_forward.expand.weight",
    "feed_forward.projection.weight",
]
BLOCKS = [f"blocks.*.{name}" for name in BLOCK]
BLOCKS_AND_HEAD = [*BLOCKS, "head.weight"]
RECURRENT = ["layers.*.weight_ih_l0", "layers.*.weight_hh_l0", "head.weight"]
DECAYED: dict[str, list[str]] = {
    "bigram": [],
    "bow": ["expand.weight", "projection.weight", "head.weight"],
    **dict.fromkeys(("gpt", "gpt1", "gpt3"), BLOCKS),  # their heads are tied
    "gpt_modern": [*BLOCKS, "head.*.weight"],
    **dict.fromkeys(("ladder", "llama", "mistral"), BLOCKS_AND_HEAD),
    **dict.fromkeys(("rnn", "gru", "lstm"), RECURRENT),
    "megabyte": [
        *(f"{part}_blocks.*.{name}" for part in ("global", "local") for name in BLOCK),
        "global_to_local.weight",
    ],
    "mlp": ["window.weight", "hidden.*.weight", "head.weight"],
    "perceiver_ar": [
        *("latent.weight", "read.query.weight", "read.key_value.weight", "read.projection.weight"),
        *("read.feed_forward.expand.weight", "read.feed_forward.projection.weight"),
        *BLOCKS,
        "head.weight",
    ],
    "wavenet": [
        *("initial_conv.conv.weight", "blocks.*.conv.conv.weight", "blocks.*.skip.weight"),
        *("blocks.*.residual.weight", "output.*.weight", "head.weight"),
    ],
    "hf": [
        f"body.h.*.{n}.weight" for n in ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
    ],
}
# Likewise, types of transformers. Of the names in STACKED each is several matrices.
SIZES = {"hidden_size": 32, "num_hidden_layers": 2}
ATTENTION = [f"body.layers.*.self_attn.{letter}_proj.weight" for letter in "qkvo"]
GROUPED = SIZES | {"num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 48}
TYPES: dict[str, tuple[dict[str, Any], list[str]]] = {
    "mamba": (
        SIZES,
        [
            f"body.layers.*.mixer.{name}.weight"
            for name in ("conv1d", "in_proj", "x_proj", "dt_proj", "out_proj")
        ],
    ),
    "rwkv": (
        SIZES,
        [
            *(f"body.blocks.*.attention.{n}.weight" for n in ("key", "value", "receptance")),
            "body.blocks.*.attention.output.weight",
            *(f"body.blocks.*.feed_forward.{n}.weight" for n in ("key", "value", "receptance")),
            "head.weight",
        ],
    ),
    "mixtral": (
        GROUPED | {"num_local_experts": 4},
        [
            *ATTENTION,
            "body.layers.*.mlp.gate.weight",
            "body.layers.*.mlp.experts.gate_up_proj",
            "body.layers.*.mlp.experts.down_proj",
            "head.weight",
        ],
    ),
    "gpt_oss": (
        GROUPED | {"head_dim": 8, "num_local_experts": 4},
        [
            *ATTENTION,
            "body.layers.*.mlp.router.weight",
            "body.layers.*.mlp.experts.gate_up_proj",
            "body.layers.*.mlp.experts.down_proj",
            "head.weight",
        ],
    ),
    "xlstm": (
        {"hidden_size": 128, "num_hidden_layers": 2, "num_heads": 4},
        [
            *(
                f"body.blocks.*.mlstm_layer.{name}.weight"
                for name in (*"qkv", "ogate_preact", "igate_preact", "fgate_preact", "out_proj")
            ),
            *(f"body.blocks.*.ffn.proj_{n}.weight" for n in ("up", "up_gate", "down")),
            "head.weight",
        ],
    ),
}
STACKED = {"body.layers.*.mlp.experts.gate_up_proj", "body.layers.*.mlp.experts.down_proj"}


def without_data(model_node: dict[str, Any]) -> LanguageModel:
    with torch.device("meta"), measure.NoInitialization():
        return build_object(model_node, LanguageModel, "model", vocab_size=23)


def of_transformers(model_type: str) -> LanguageModel:
    settings = {"model_type": model_type, **TYPES[model_type][0]}
    return without_data(
        {"_target_": "zoo.hugging_face.HuggingFace", "block_size": 24, "config": settings}
    )


def require_groups(model: nn.Module, expected: list[str]) -> None:
    names = {id(p): name for name, p in model.named_parameters()}
    found = parameter_groups(model, lr=1.0, lr_of={}, weight_decay=0.1)

    def those(chosen: Callable[[dict[str, Any]], object]) -> list[str]:
        kept = [group["params"] for group in found if chosen(group)]
        return sorted(group_by_pattern(names[id(p)] for params in kept for p in params))

    output = [name for name in expected if "head." in name]
    assert those(lambda group: group["weight_decay"]) == sorted(expected)
    assert those(lambda group: group["hidden"]) == sorted(set(expected) - set(output))
    assert those(lambda group: group["stack"]) == sorted(STACKED & set(expected))
    assert unmarked_line(model) is None


def test_every_model_is_listed() -> None:
    assert DECAYED.keys() == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_decayed_and_what_is_muon_s(name: str) -> None:
    """And nothing in the zoo is unmarked."""
    model = without_data(node(name))
    require_groups(model, DECAYED[name])
    tables = {id(p) for m in model.modules() if isinstance(m, nn.Embedding) for p in m.parameters()}
    embedded = sum(p.numel() for p in model.parameters() if id(p) in tables)
    assert measure.parameters(model)["embedding"] == embedded > 0


@pytest.mark.parametrize("model_type", TYPES)
def test_what_is_decayed_of_transformers(model_type: str) -> None:
    require_groups(of_transformers(model_type), TYPES[model_type][1])


@pytest.mark.parametrize(
    ("model_type", "table", "wrong"),
    [
        ("mamba", "*", {"A_log": LINEAR}),
        ("rwkv", "Rwkv*", {"time_mix_*": Role(matrix=(1, 2), decay=True)}),
        ("mixtral", "*Experts", {"*_proj": Role(matrix=(0, 1, 2), decay=True)}),  # flattened
        ("mixtral", "*Experts", {"*_proj": Role(matrix=(1, 2))}),
        ("mixtral", "*Experts", {}),
        ("mixtral", "MixtralRMSNorm", {"weight": Role(decay=True)}),
        ("gpt_oss", "GptOssExperts", {"*_proj": LINEAR, "*_proj_bias": LINEAR}),
        ("xlstm", "xLSTM*", {"weight": Role(decay=True)}),
    ],
)
def test_a_wrong_table_is_noticed(
    monkeypatch: pytest.MonkeyPatch, model_type: str, table: str, wrong: dict[str, Role]
) -> None:
    tables = {table: wrong} | zoo_roles.LIBRARIES["transformers"]
    tables[table] = wrong
    monkeypatch.setitem(zoo_roles.LIBRARIES, "transformers", tables)
    with pytest.raises(AssertionError):
        require_groups(of_transformers(model_type), TYPES[model_type][1])


def test_a_decayed_norm_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(zoo_roles.TORCH, nn.LayerNorm, {"weight": Role(decay=True)})
    with pytest.raises(AssertionError):
        require_groups(without_data(node("gpt")), DECAYED["gpt"])


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
    """Whichever of the two comes first, it is an embedding."""
    model = nn.ModuleDict({"head": nn.Linear(4, 7, bias=False), "table": nn.Embedding(7, 4)})
    model["head"].weight = model["table"].weight
    role = roles(model)["head.weight"]
    assert role is not None
    assert role.embedding
    (group,) = parameter_groups(model, 0.1, {}, 0.5)
    assert (group["weight_decay"], group["hidden"]) == (0.0, False)
    (group,) = parameter_groups(model, 0.1, {}, 0.5, decay_embeddings=True)
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


def test_a_head_that_stays_inside_is_the_output() -> None:
    """xLSTM caps its logits, so that they are the features; its head was Muon's."""
    from zoo.hugging_face import HuggingFace

    model = HuggingFace(23, 24, {"model_type": "xlstm", **TYPES["xlstm"][0], "chunk_size": 8})
    assert isinstance(model.head, nn.Identity)
    assert roles(model)["body.lm_head.weight"] == Role((0, 1), decay=True, output=True)
    assert roles(copy.deepcopy(model)) == roles(model)


def test_a_scheme_leaves_time_constants_alone() -> None:
    from zoo.hugging_face import HuggingFace

    settings = {"num_heads": 4, "head_dim": 16, "state_size": 8, "n_groups": 1, "chunk_size": 8}
    model = HuggingFace(23, 8, {"model_type": "mamba2", **SIZES, **settings})
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    assert any("dt_bias" in name for name in before)
    model.initialize("kaiming")
    for name, parameter in model.named_parameters():
        kept = name.endswith(("dt_bias", "A_log", ".D", "norm.weight", "norm_f.weight"))
        assert torch.equal(parameter, before[name]) == (kept or not parameter.any()), name


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
