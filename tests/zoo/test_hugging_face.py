"""Architectures of transformers under our laws, at tiny sizes, with nothing downloaded."""

from __future__ import annotations

import logging
import socket
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from harness.common.errors import UsageError
from harness.common.paths import CONF
from harness.compute import costs as measure
from harness.config.build import build_object
from tests.small_runs import train
from tests.zoo.laws import LAWS
from tests.zoo_models import VOCAB, Make, random_ids, randomize
from zoo import hugging_face
from zoo.hugging_face import HuggingFace
from zoo.language_model import LanguageModel

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


# Whose caches are of other kinds: experts, hybrids of attention and recurrence, a decoder alone.
MAMBA = {"mamba_n_heads": 4, "mamba_d_head": 16, "mamba_d_state": 8, "mamba_chunk_size": 8}
LINEAR = {
    "linear_num_key_heads": 2, "linear_num_value_heads": 4,
    "linear_key_head_dim": 8, "linear_value_head_dim": 8,
}  # fmt: skip
OTHERS: dict[str, dict[str, Any]] = {
    "mixtral": GROUPED,
    "deepseek_v3": GROUPED
    | {"num_key_value_heads": 4, "q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 8}
    | {"qk_nope_head_dim": 8, "v_head_dim": 8, "n_routed_experts": 4, "num_experts_per_tok": 2}
    | {"n_group": 1, "topk_group": 1, "moe_intermediate_size": 16, "first_k_dense_replace": 1},
    "qwen3_next": GROUPED
    | LINEAR
    | {"num_hidden_layers": 4, "head_dim": 8, "num_experts": 4, "num_experts_per_tok": 2}
    | {"moe_intermediate_size": 16, "shared_expert_intermediate_size": 16},
    "bamba": GROUPED | MAMBA | {"mamba_n_groups": 1, "attn_layer_indices": [1]},
    "granitemoehybrid": GROUPED | MAMBA | {"mamba_n_groups": 1},
    "recurrent_gemma": GROUPED | {"lru_width": 32, "attention_window_size": 5},
    "mamba": SIZES | {"state_size": 8},
    "bart": {"d_model": 32, "decoder_layers": 2, "decoder_attention_heads": 4}
    | {"decoder_ffn_dim": 48},
    "llama4_text": GROUPED
    | {
        "head_dim": 8,
        "num_local_experts": 4,
        "num_experts_per_tok": 1,
        "intermediate_size_mlp": 48,
    },
    "biogpt": SIZES | HEADS,
    "moshi": SIZES | {"num_attention_heads": 4, "ffn_dim": 48},
}


def a_few(types: Iterable[str]) -> list[Any]:
    """Every third one; the others are long tests."""
    return [
        pytest.param(each, marks=[pytest.mark.long] if n % 3 else [])
        for n, each in enumerate(types)
    ]


def build(model_type: str, **settings: Any) -> HuggingFace:
    torch.manual_seed(0)
    sizes = (TYPES | OTHERS)[model_type]
    return HuggingFace(VOCAB, BLOCK, {"model_type": model_type, **sizes, **settings})


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
@pytest.mark.parametrize("model_type", a_few(TYPES))
@pytest.mark.parametrize("law", LAWS_IN_DOUBLE)
def test_law(law: str, model_type: str) -> None:
    LAWS[law](make(model_type))


@pytest.mark.parametrize("model_type", TYPES)
@pytest.mark.parametrize("law", ["saving", pytest.param("overfitting", marks=pytest.mark.long)])
def test_law_in_their_precision(law: str, model_type: str) -> None:
    LAWS[law](make(model_type))


@pytest.mark.parametrize("model_type", TYPES)
def test_what_is_found_out_when_it_is_built(model_type: str) -> None:
    model = build(model_type)
    assert model.uses_cache == (model_type not in NO_CACHE)
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


def _goes_on_in_chunks_and_learns(model: HuggingFace) -> None:
    ids, rows = random_ids(3, 20), [2, 0, 2]
    model.train()(ids).logsumexp(-1).sum().backward()
    with torch.no_grad():
        expected, cache = model.eval()(ids), model.init_cache(3)
        parts = [model(chunk, cache) for chunk in ids[:, :9].tensor_split([7, 8], dim=1)]
        parts = [*(part[rows] for part in parts), model(ids[rows, 9:], cache.select(rows))]
    torch.testing.assert_close(torch.cat(parts, dim=1), expected[rows], rtol=0, atol=1e-3)


@pytest.mark.parametrize("model_type", a_few(OTHERS))
def test_others_are_right_or_say_that_they_recompute(
    model_type: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        model = build(model_type)
    lines = [record.getMessage() for record in caplog.records if record.name.startswith("zoo")]
    assert len(lines) == (not model.uses_cache)
    assert all(f"cache of {model_type} can't be used" in line for line in lines)
    assert model.uses_cache or model_type not in ("mixtral", "deepseek_v3", "qwen3_next", "bart")
    _goes_on_in_chunks_and_learns(model)
    assert measure.step_flops(lambda: build(model_type), BLOCK) > 0


@pytest.mark.parametrize("model_type", ["gpt2", "mamba2", "xlstm"])
def test_where_no_name_of_a_cache_is_known_it_recomputes_and_says_so(
    model_type: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As after release 5.24, which renamed them."""
    monkeypatch.setattr(hugging_face, "CACHE_NAMES", ("once", "twice"))
    with caplog.at_level(logging.WARNING):
        model = build(model_type)
    assert f"{model_type} can't be used (it takes none of the arguments once, twice)" in caplog.text
    assert "compute all earlier tokens again" in caplog.text
    assert not model.uses_cache
    _goes_on_in_chunks_and_learns(model)


def test_the_runs_log_says_so(tmp_path: Path) -> None:
    sizes = ("n_embd=16", "n_layer=1", "n_head=2")
    settings_of_gpt = [f"+model.config.{size}" for size in sizes]
    settings_of_gpt += ["~model.config.hidden_size", "~model.config.num_hidden_layers"]
    chosen = ("model=hf", "model.config.model_type=openai-gpt", *settings_of_gpt)
    assert train(tmp_path, *chosen, "train.steps=1", "precision=bf16") == 0
    log = (tmp_path / "run/train.log").read_text()
    assert log.count("cache of openai-gpt can't be used") == 1


@pytest.mark.parametrize(
    ("model_type", "sizes"),
    [("diffllama", GROUPED), ("jetmoe", SIZES), ("xlnet", {"d_model": 32, "n_head": 4})],
)
def test_one_whose_costs_cannot_be_counted_is_refused(
    model_type: str, sizes: dict[str, Any]
) -> None:
    expected = rf"^this {model_type} can't run on {BLOCK} tokens, or its costs can't be counted: "
    with torch.device("meta"), pytest.raises(ValueError, match=expected):
        HuggingFace(VOCAB, BLOCK, {"model_type": model_type, **sizes})


def test_costs_are_tried_on_a_full_window(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hugging_face, "_COUNTABLE", set())
    run, seen = HuggingFace._run, []

    def running(self: HuggingFace, ids: Tensor, *rest: Any, **options: Any) -> tuple[Tensor, Any]:
        seen.append(ids.shape[1])
        return run(self, ids, *rest, **options)

    monkeypatch.setattr(HuggingFace, "_run", running)
    with torch.device("meta"):
        build("llama")
        build("llama")
    assert seen == [BLOCK]


def test_one_with_too_few_positions_is_refused_before_its_folder_is_made(tmp_path: Path) -> None:
    """With padding, RoBERTa counts its positions from there: eight tokens pass."""
    sizes = [f"+model.config.{name}={value}" for name, value in HEADS.items()]
    chosen = ("model=hf", "model.config.model_type=roberta", "model.config.hidden_size=32", *sizes)
    with pytest.raises(UsageError, match=r"this roberta can't run on 16 tokens: .*index 16"):
        train(tmp_path, *chosen, "+model.config.pad_token_id=1")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("model_type", ["qwen3_moe", "kolibri1", "kimi_linear"])
def test_a_setting_that_is_also_another_name_is_a_setting(
    model_type: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "num_local_experts" if model_type == "kimi_linear" else "num_experts"
    made: list[Any] = []

    def refuse(config: Any) -> None:
        made.append(config)
        raise RuntimeError("enough")

    monkeypatch.setattr(hugging_face.AutoModelForCausalLM, "from_config", refuse)
    with pytest.raises(ValueError, match="can't be built: RuntimeError: enough"):
        HuggingFace(VOCAB, BLOCK, {"model_type": model_type, name: 3})
    assert made[0].num_experts == 3


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


@pytest.mark.parametrize("model_type", a_few([*TYPES, "mixtral"]))
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
        ({"model_type": "lama"}, "not a causal language model of transformers. Did you"),
        ({"model_type": "llama", "hiden_size": 8}, "no such setting. Did you mean hidden_size?"),
        ({"model_type": "mamba2", "num_attention_heads": 4}, "num_attention_heads: mamba2 has no"),
        (
            {"model_type": "llama", "vocab_size": 8},
            "vocab_size can't be set: it follows",
        ),
        (
            {"model_type": "gpt2", "n_positions": 8},
            "n_positions can't be set: it follows",
        ),
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


@pytest.mark.long
def test_transformers_is_imported_for_its_models_only() -> None:
    """It takes seconds."""
    code = (
        "import sys; from tests.zoo_models import fresh, node; fresh(node('gpt')); "
        "assert 'transformers' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=CONF.parent)
