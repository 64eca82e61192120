"""What each parameter is taken for: decayed, orthogonalized, limited, drawn anew, or left alone."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from harness.compute import costs as measure
from harness.config.build import build_object
from harness.training.parameter_groups import group_by_pattern, parameter_groups, unmarked_line
from tests.zoo_models import TRAINED, node
from zoo import roles as zoo_roles
from zoo.language_model import LanguageModel
from zoo.layers.experts import ExpertLinear
from zoo.roles import LINEAR, Role, roles

# By model, the closed list of what is decayed: all of it is Muon's, but for the head.
BLOCK = [
    "attention.qkv.weight",
    "attention.projection.weight",
    "feed_forward.expand.weight",
    "feed_forward.projection.weight",
]
BLOCKS = [f"blocks.*.{name}" for name in BLOCK]
BLOCKS_AND_HEAD = [*BLOCKS, "head.weight"]
BLOCKS_AND_TIED = [*BLOCKS, "token_embedding.weight"]
DELTA = [
    *("blocks.*.mixer.expand.weight", "blocks.*.mixer.projection.weight"),
    *(*BLOCKS[2:], "token_embedding.weight"),
]
RECURRENT = ["layers.*.weight_ih_l0", "layers.*.weight_hh_l0", "head.weight"]
DECAYED: dict[str, list[str]] = {
    "bigram": [],
    "bow": ["expand.weight", "projection.weight", "head.weight"],
    **dict.fromkeys(("gpt", "gpt1", "gpt3"), BLOCKS_AND_TIED),
    "gpt_modern": [*BLOCKS, "head.*.weight"],
    "gpt_moe": [*BLOCKS_AND_TIED, "blocks.*.feed_forward.router.weight"],
    **dict.fromkeys(("ladder", "llama", "mistral"), BLOCKS_AND_HEAD),
    **dict.fromkeys(("rnn", "gru", "lstm"), RECURRENT),
    "megabyte": [
        *(f"{part}_blocks.*.{name}" for part in ("global", "local") for name in BLOCK),
        *("global_to_local.weight", "local_embedding.weight"),
    ],
    "hierarchical": ["layers.*.weight", "head.weight"],
    "mlp": ["window.weight", "hidden.*.weight", "head.weight"],
    "perceiver_ar": [
        *("latent.weight", "read.query.weight", "read.key_value.weight", "read.projection.weight"),
        *("read.feed_forward.expand.weight", "read.feed_forward.projection.weight"),
        *BLOCKS,
        "head.weight",
    ],
    "spacebyte": [
        *(f"{part}_blocks.*.{name}" for part in ("global", "local") for name in BLOCK),
        "head.weight",
    ],
    "hnet": [
        *(
            f"{part}.*.{n}.weight"
            for part in ("encoder", "decoder")
            for n in ("expand", "projection")
        ),
        *(f"main.*.{name}" for name in BLOCK),
        *("router.query.weight", "router.key.weight", "skip.weight", "head.weight"),
    ],
    "wavenet": [
        *("initial_conv.conv.weight", "blocks.*.conv.conv.weight", "blocks.*.skip.weight"),
        *("blocks.*.residual.weight", "output.*.weight", "head.weight"),
    ],
    "mamba2": ["blocks.*.expand.weight", "blocks.*.projection.weight", "token_embedding.weight"],
    "gated_deltanet": DELTA,
    "gated_deltanet_hybrid": [
        *DELTA,
        *("blocks.*.mixer.attention.qkv.weight", "blocks.*.mixer.attention.projection.weight"),
    ],
    "mlstm": [
        *(f"blocks.*.{name}.weight" for name in ("expand", "gates", "projection")),
        *(*BLOCKS[2:], "token_embedding.weight"),
    ],
    "rwkv7": [
        *(f"time_mixings.*.{n}.weight" for n in ("receptance", "key", "value", "projection")),
        *(f"time_mixings.*.{n}.up.weight" for n in ("decay", "rate", "gate", "value_mix")),
        *(f"time_mixings.*.{n}.down.weight" for n in ("decay", "rate", "gate", "value_mix")),
        *("channel_mixings.*.expand.weight", "channel_mixings.*.projection.weight", "head.weight"),
    ],
    "hf": [
        *(f"body.h.*.{n}.weight" for n in ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")),
        "body.wte.weight",
    ],
}
# Embeddings that are the head, too.
TIED = {
    *("token_embedding.weight", "local_embedding.weight"),
    *("body.wte.weight", "body.embeddings.weight"),
}
# Likewise, types of transformers. Of the names in STACKED each is several matrices.
SIZES = {"hidden_size": 32, "num_hidden_layers": 2}
ATTENTION = [f"body.layers.*.self_attn.{letter}_proj.weight" for letter in "qkvo"]
GROUPED = SIZES | {"num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 48}
TYPES: dict[str, tuple[dict[str, Any], list[str]]] = {
    "mamba": (
        SIZES,
        [
            *(
                f"body.layers.*.mixer.{name}.weight"
                for name in ("conv1d", "in_proj", "x_proj", "dt_proj", "out_proj")
            ),
            "body.embeddings.weight",
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


def experts(model: nn.Module) -> set[int]:
    """The weights that our experts stack."""
    return {id(module.weight) for module in model.modules() if isinstance(module, ExpertLinear)}


def require_groups(model: nn.Module, expected: list[str]) -> None:
    names = {id(p): name for name, p in model.named_parameters()}
    found = parameter_groups(model, lr=1.0, lr_of={}, weight_decay=0.1)

    def those(chosen: Callable[[dict[str, Any]], object]) -> list[str]:
        kept = [group["params"] for group in found if chosen(group)]
        return sorted(group_by_pattern(names[id(p)] for params in kept for p in params))

    output = [name for name in expected if "head." in name or name in TIED]
    assert those(lambda group: group["weight_decay"]) == sorted(expected)
    assert those(lambda group: group["hidden"]) == sorted(set(expected) - set(output))
    stacked = {names[id(p)] for p in model.parameters() if id(p) in experts(model)}
    assert those(lambda group: group["stack"]) == sorted(
        STACKED & set(expected) | set(group_by_pattern(stacked))
    )
    assert unmarked_line(model) is None


def test_every_model_is_listed() -> None:
    assert DECAYED.keys() == set(TRAINED)


@pytest.mark.parametrize("name", TRAINED)
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
