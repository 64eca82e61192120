"""The GPT family against transformers' models of it, through copied weights, in float64.

Ours are built from conf/model/, theirs from configurations written here: nothing is downloaded.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"

import pytest
import torch
import torch.nn.functional as F
import transformers
from torch import Tensor, nn

from tests.zoo_models import fresh, node, random_ids, randomize
from zoo.gpt import GPT
from zoo.layers import attention, dropout

V, T, L, H, C, BAND, THETA = 53, 40, 4, 6, 48, 7, 500.0
SIZES = [f"train.seq_len={T}", f"model.n_layer={L}", f"model.n_head={H}", f"model.n_embd={C}"]
TOLERANCE = 1e-10
Pair = tuple[GPT, nn.Module]


@pytest.fixture(autouse=True)
def _all_in_double(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Transformers norms, turns and weighs in float32 whatever the weights are: not here."""
    monkeypatch.setattr(torch, "float32", torch.float64)
    monkeypatch.setattr(torch, "float", torch.float64)
    monkeypatch.setattr(Tensor, "float", Tensor.double)
    with torch.no_grad():
        yield


def pair(name: str, theirs: str, sizes: dict[str, Any], names: dict[str, str], *more: str) -> Pair:
    """Ours of conf/model/NAME.yaml and the model of transformers whose weights it gets.

    names: what parts of the names of their weights are called here.
    """
    settings = getattr(transformers, f"{theirs}Config")(
        vocab_size=V, attn_implementation="eager", **sizes
    )
    heads = {"GPT2": "LMHeadModel", "OpenAIGPT": "LMHeadModel"}
    their_class = getattr(transformers, theirs + heads.get(theirs, "ForCausalLM"))
    model = randomize(their_class(settings).double()).eval()
    state: dict[str, Tensor] = {}
    for their_name, weight in model.state_dict().items():
        # Their GPT-1 and GPT-2 keep matrices the other way around.
        turned = theirs in heads and ".c_" in their_name and weight.dim() == 2
        our_name = their_name
        for part, ours in names.items():
            our_name = our_name.replace(part, ours)
        state[our_name] = weight.mT if turned else weight
    ours = fresh(node(name, *SIZES, *more), V).double().eval()
    assert isinstance(ours, GPT)
    ours.load_state_dict(_joined(state, ours))
    return ours, model


def _joined(state: dict[str, Tensor], model: GPT) -> dict[str, Tensor]:
    """Weights that are several maps over there and one here. Theirs must all be used."""
    for layer in range(L):
        block = f"blocks.{layer}."
        for ours, parts in {
            "attention.qkv": [f"attention.{part}_proj" for part in "qkv"],
            "feed_forward.expand": ["mlp.gate_proj", "mlp.up_proj"],
        }.items():
            if f"{block}{parts[0]}.weight" in state:
                joined = torch.cat([state.pop(f"{block}{part}.weight") for part in parts])
                state[f"{block}{ours}.weight"] = joined
    for name, parameter in model.state_dict().items():
        if name.endswith("qkv.bias") and name not in state:  # GPT-Neo has none
            state[name] = torch.zeros_like(parameter)
    return state


GPT2_NAMES = {
    "transformer.": "", "h.": "blocks.", "wte": "token_embedding", "wpe": "position_embedding",
    "tokens_embed": "token_embedding", "positions_embed": "position_embedding", "lm_head": "head",
    "ln_f": "norm", "ln_1": "attention_norm", "ln_2": "feed_forward_norm",
    "attn.c_attn": "attention.qkv", "attn.c_proj": "attention.projection",
    "attn.attention.out_proj": "attention.projection", "attn.attention": "attention",
    "mlp.c_fc": "feed_forward.expand", "mlp.c_proj": "feed_forward.projection",
}  # fmt: skip
LLAMA_NAMES = {
    "model.": "", "layers.": "blocks.", "embed_tokens": "token_embedding", "lm_head": "head",
    "input_layernorm": "attention_norm", "post_attention_layernorm": "feed_forward_norm",
    "self_attn.o_proj": "attention.projection", "self_attn": "attention",
    "mlp.down_proj": "feed_forward.projection",
}  # fmt: skip
GPT2_SIZES = {"n_positions": T, "n_layer": L, "n_head": H, "n_embd": C}
LLAMA_SIZES = {
    "max_position_embeddings": T, "num_hidden_layers": L, "hidden_size": C,
    "num_attention_heads": H, "num_key_value_heads": 2, "intermediate_size": 80,
    "rms_norm_eps": 1e-5, "rope_parameters": {"rope_type": "default", "rope_theta": THETA},
}  # fmt: skip
LLAMA = ["model.n_kv_head=2", "model.n_inner=80", f"model.rotary_theta={THETA}"]


def gpt3() -> Pair:
    """GPT-Neo is GPT-3's dense and banded by turns. It has no bias at the queries, keys and values,
    and does not divide by sqrt(D): our queries are made that much longer."""
    sizes = {
        "max_position_embeddings": T, "num_layers": L, "num_heads": H, "hidden_size": C,
        "window_size": BAND, "attention_types": [[["global", "local"], L // 2]],
    }  # fmt: skip
    ours, theirs = pair("gpt3", "GPTNeo", sizes, GPT2_NAMES, f"model.bands=[null,{BAND}]")
    for block in ours.blocks:
        block.attention.qkv.weight[:C] *= (C // H) ** 0.5
    return ours, theirs


PAIRS = {
    "gpt": lambda: pair("gpt", "GPT2", GPT2_SIZES, GPT2_NAMES),
    "gpt1": lambda: pair("gpt1", "OpenAIGPT", GPT2_SIZES, GPT2_NAMES),
    "gpt3": gpt3,
    "llama": lambda: pair("llama", "Llama", LLAMA_SIZES, LLAMA_NAMES, *LLAMA),
    "mistral": lambda: pair(
        "mistral", "Mistral", LLAMA_SIZES | {"sliding_window": BAND}, LLAMA_NAMES,
        *LLAMA, f"model.bands=[{BAND}]",
    ),
    "llama with qk_norm": lambda: pair(
        "llama", "Qwen3", LLAMA_SIZES | {"head_dim": C // H}, LLAMA_NAMES,
        *LLAMA, "model.qk_norm=true",
    ),
}  # fmt: skip
DROPOUT = {"embd_pdrop": 0.3, "attn_pdrop": 0.3, "resid_pdrop": 0.3}
DROPPING = {
    "gpt": lambda: pair("gpt", "GPT2", GPT2_SIZES | DROPOUT, GPT2_NAMES, "model.dropout=0.3"),
    "attention alone": lambda: pair(
        "llama", "Llama", LLAMA_SIZES | {"attention_dropout": 0.3}, LLAMA_NAMES,
        *LLAMA, "model.attention_dropout=0.3",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PAIRS)
def test_logits_equal_those_of_transformers(name: str) -> None:
    ours, theirs = PAIRS[name]()
    ids = random_ids(2, T, vocab_size=V)
    torch.testing.assert_close(ours(ids), theirs(ids).logits, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("name", [name for name in PAIRS if name != "gpt1"])  # theirs has no cache
def test_cached_logits_equal_those_of_transformers(name: str) -> None:
    """A prompt, then token by token, each through its own cache and past the band of a banded."""
    ours, theirs = PAIRS[name]()
    ids = random_ids(2, T, vocab_size=V)
    cache, past = ours.init_cache(2), None
    for chunk in ids.split([5, 6, *[1] * (T - 11)], dim=1):
        output = theirs(chunk, past_key_values=past, use_cache=True)
        past = output.past_key_values
        torch.testing.assert_close(ours(chunk, cache), output.logits, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("name", DROPPING)
def test_dropout_is_in_the_same_places(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With torch's draws from one seed, it drops the same numbers only if it is asked for in the
    same order, with the same shapes."""
    for module in (dropout, attention):
        monkeypatch.setattr(module, "drop_out", F.dropout)
    models = [model.train() for model in DROPPING[name]()]
    ids = random_ids(2, T, vocab_size=V)
    logits = []
    for model in models:
        torch.manual_seed(0)
        output = model(ids)
        logits.append(output if isinstance(output, Tensor) else output.logits)
    torch.testing.assert_close(*logits, rtol=0, atol=TOLERANCE)
    assert (models[0].eval()(ids) - logits[0]).abs().max() > 0.1
