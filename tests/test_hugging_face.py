"""Architectures of transformers under our laws, at tiny sizes, with nothing downloaded."""

from __future__ import annotations

import logging
import socket
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from harness.common.errors import UsageError
from harness.common.paths import CONF
from harness.compute import costs as measure
from harness.config.build import build_object
from zoo.hugging_face import HuggingFace
from zoo.language_model import LanguageModel

from .laws import LAWS
from .zoo_models import VOCAB, Make, random_ids, randomize

BLOCK = 24
SIZES = {"hidden_size": 32, "num_hidden_layers": 2}
HEADS = {"num_attention_heads": 4, "intermediate_size": 48}
GROUPED = SIZES | HEADS | {"num_key_value_heads": 2}
TYPES: dict[str, dict[str, Any]] = {
    "gpt2": SIZES | {"n_head": 4},
    "llama": GROUPED,
    "qwen3": GROUPED | {"head_dim": 8},
    "gpt_neox": SIZES | HEADS,
    # Five layers with a sliding window and one without.
    "gemma3_text": GROUPED | {"head_dim": 8, "num_hidden_layers": 6, "sliding_window": 5},
    "gemma2": GROUPED | {"head_dim": 8, "sliding_window": 5},
    "bert": SIZES | HEADS,
    "openai-gpt": SIZES | {"n_head": 4},
    "mamba2": SIZES
    | {"num_heads": 4, "head_dim": 16, "state_size": 8, "n_groups": 1, "chunk_size": 8},
    "rwkv": SIZES,
    "xlstm": {"hidden_size": 128, "num_hidden_layers": 2, "num_heads": 4, "chunk_size": 8},
}
# OpenAI's first GPT has no cache in transformers, and RWKV's mixes the rows of a batch.
NO_CACHE = {"openai-gpt", "rwkv"}
# Two cap the logits; BERT's head is more than a linear map.
LOGITS_AS_FEATURES = {"gemma2", "xlstm", "bert"}
LAWS_IN_DOUBLE = [law for law in LAWS if law not in ("saving", "overfitting")]


def build(model_type: str, **settings: Any) -> HuggingFace:
    torch.manual_seed(0)
    return HuggingFace(VOCAB, BLOCK, {"model_type": model_type, **TYPES[model_type], **settings})


@pytest.fixture
def in_double(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Transformers norms, turns and scans in float32 whatever the weights are: not here."""
    torch.set_default_dtype(torch.float64)
    monkeypatch.setattr(torch, "float32", torch.float64)
    monkeypatch.setattr(torch, "float", torch.float64)
    monkeypatch.setattr(Tensor, "float", Tensor.double)
    yield
    monkeypatch.undo()
    torch.set_default_dtype(torch.float32)


def make(model_type: str) -> Make:
    def maker(random: bool = True) -> LanguageModel:
        model = build(model_type).double().eval()
        # With decays of any strength Mamba forgets within a few tokens; it begins with weak ones.
        return randomize(model) if random and model_type != "mamba2" else model

    return maker


@pytest.mark.usefixtures("in_double")
@pytest.mark.parametrize("model_type", TYPES)
@pytest.mark.parametrize("law", LAWS_IN_DOUBLE)
def test_law(law: str, model_type: str) -> None:
    LAWS[law](make(model_type))


@pytest.mark.parametrize("model_type", TYPES)
@pytest.mark.parametrize("law", ["saving", "overfitting"])
def test_law_in_their_precision(law: str, model_type: str) -> None:
    LAWS[law](make(model_type))


@pytest.mark.parametrize("model_type", TYPES)
def test_what_is_found_out_when_it_is_built(model_type: str) -> None:
    model = build(model_type)
    assert model.keeps_past == (model_type not in NO_CACHE)
    assert isinstance(model.head, torch.nn.Identity) == (model_type in LOGITS_AS_FEATURES)
    assert model.block_size == (None if model_type in ("mamba2", "xlstm") else BLOCK)


def test_trying_it_out_leaves_no_trace() -> None:
    """Weights that begin as zeros, here the biases, are other than zero only while it is tried."""
    model = build("gpt2")
    biases = [weight for name, weight in model.named_parameters() if name.endswith("bias")]
    assert biases
    assert not any(bias.any() for bias in biases)
    assert model.training


@pytest.mark.parametrize("model_type", sorted(TYPES.keys() - NO_CACHE))
def test_a_cached_token_costs_one_token(model_type: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = build(model_type).eval()
    seen: list[int] = []
    embedding = next(m for m in model.modules() if isinstance(m, torch.nn.Embedding))
    embedding.register_forward_hook(lambda module, ids, output: seen.append(ids[0].shape[1]))
    cache = model.init_cache(2)
    with torch.no_grad():
        model(random_ids(2, 9), cache)
        model(random_ids(2, 1), cache)
    assert seen == [9, 1]
    assert cache.nbytes > 0
    assert all(len(tensor) == 2 for tensor in cache.tensors.values())


def test_one_that_recomputes_says_so(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        build("rwkv")
        assert "rwkv can't be used (it mixes the rows of a batch)" in caplog.text
        caplog.clear()
        build("llama")
        assert not caplog.text


@pytest.mark.parametrize("model_type", TYPES)
def test_every_token_learns_and_none_is_dropped(model_type: str) -> None:
    """No id is padding, whose embedding would get no gradient; dropout is 0 unless asked for."""
    model = build(model_type).train()
    ids = torch.arange(VOCAB)[None]
    logits = model(ids)
    torch.testing.assert_close(model(ids), logits, rtol=0, atol=0)
    logits.logsumexp(-1).sum().backward()
    embedding = next(
        m for m in model.modules() if isinstance(m, torch.nn.Embedding) and len(m.weight) == VOCAB
    )
    assert embedding.weight.grad is not None
    assert embedding.weight.grad.any(dim=1).all()


def test_dropout_is_there_when_asked_for() -> None:
    model = build("gpt2", resid_pdrop=0.5).train()
    ids = random_ids(1, 8)
    assert not torch.equal(model(ids), model(ids))


@pytest.mark.parametrize("model_type", [*TYPES, "mixtral"])
def test_costs_are_counted_without_weights(
    model_type: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(TYPES, "mixtral", GROUPED)
    model = build(model_type)
    flops = measure.forward_flops(lambda: build(model_type), BLOCK)
    # Each weight of a map multiplies once; embeddings look up, and attention comes on top.
    assert 0 < flops < 4 * BLOCK * measure.parameters(model)["total"]


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"model_type": "lama"}, "no causal language model of transformers. Did you mean llama?"),
        ({"model_type": "llama", "hiden_size": 8}, "no such setting. Did you mean hidden_size?"),
        ({"model_type": "mamba2", "num_attention_heads": 4}, "num_attention_heads: mamba2 has no"),
        ({"model_type": "llama", "vocab_size": 8}, "vocab_size can't be set: the data decide"),
        ({"model_type": "gpt2", "n_positions": 8}, "n_positions can't be set: block_size decides"),
        ({"model_type": "llama", "hidden_size": "wide"}, "expected int, got str"),
        ({"model_type": "llama", **GROUPED, "hidden_size": 30}, "not a multiple of the number"),
        ({"model_type": "gemma3"}, "no vocab_size"),
        ({"model_type": "xlnet", "d_model": 32, "n_layer": 2, "n_head": 4}, "is not causal"),
        ({"model_type": "bert", **TYPES["bert"], "is_decoder": False}, "is not causal"),
        ({}, "model_type"),
    ],
)
def test_refused(settings: dict[str, Any], complaint: str) -> None:
    node = {"_target_": "zoo.hugging_face.HuggingFace", "block_size": BLOCK, "config": settings}
    with pytest.raises(UsageError) as caught:
        build_object(node, LanguageModel, "model", vocab_size=VOCAB)
    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)


def test_nothing_is_downloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants  # not before zoo.hugging_face has said so

    def refuse(*arguments: object) -> None:
        raise AssertionError("a connection was tried")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    build("llama")
    assert constants.HF_HUB_OFFLINE


def test_transformers_is_imported_for_its_models_only() -> None:
    """It takes seconds."""
    code = (
        "import sys; from tests.zoo_models import fresh, node; fresh(node('gpt')); "
        "assert 'transformers' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=CONF.parent)
