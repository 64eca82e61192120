"""Mamba-2, Gated DeltaNet and mLSTM against transformers' torch code (which computes in fp32), and
RWKV-7 against its equations in float64."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.zoo_models import VOCAB, fresh, maker, node, random_ids
from zoo.gated_deltanet import DeltaRule
from zoo.language_model import LanguageModel
from zoo.mlstm import MLSTM, MLSTMBlock

B, T = 2, 75  # more than a chunk


def moved(model: nn.Module) -> Any:
    """Every weight is drawn, so that none is the same as another's default."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            scale = parameter[0].numel() ** -0.5 if parameter.dim() > 1 else 0.1
            parameter.add_(torch.randn_like(parameter) * scale)
    return model.eval()


def assert_close(ours: Tensor, theirs: Tensor) -> None:
    most = theirs.abs().max().item()
    assert most > 0.1
    torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-5 * most)


@torch.no_grad()
def test_mamba2_equals_transformers() -> None:
    from transformers import Mamba2Config, Mamba2ForCausalLM

    settings = node("mamba2", "model.n_layer=2", "model.n_embd=32", "model.n_head_channels=16")
    model = moved(fresh(settings))
    config = Mamba2Config(
        vocab_size=VOCAB, hidden_size=32, num_hidden_layers=2, num_heads=4, head_dim=16,
        state_size=64, n_groups=1, expand=2, conv_kernel=4, chunk_size=16, layer_norm_epsilon=1e-5,
        use_bias=False, use_conv_bias=True, tie_word_embeddings=True, residual_in_fp32=False,
    )  # fmt: skip
    theirs = Mamba2ForCausalLM(config).eval()
    names = {
        "token_embedding.weight": "backbone.embeddings.weight",
        "norm.weight": "backbone.norm_f.weight",
        "head.weight": "lm_head.weight",
    }
    parts = {
        "input_norm.weight": "norm.weight",
        "expand.weight": "mixer.in_proj.weight",
        "conv.conv.weight": "mixer.conv1d.weight",
        "conv.conv.bias": "mixer.conv1d.bias",
        "dt_bias": "mixer.dt_bias",
        "A_log": "mixer.A_log",
        "skip": "mixer.D",
        "norm.weight": "mixer.norm.weight",
        "projection.weight": "mixer.out_proj.weight",
    }
    for layer in range(2):
        names |= {f"blocks.{layer}.{a}": f"backbone.layers.{layer}.{b}" for a, b in parts.items()}
    theirs.load_state_dict({names[name]: weight for name, weight in model.state_dict().items()})
    ids = random_ids(B, T)
    assert_close(model(ids), theirs(ids, use_cache=False).logits)


@torch.no_grad()
def test_delta_rule_equals_qwen3_nexts() -> None:
    from transformers import Qwen3NextConfig
    from transformers.models.qwen3_next.modeling_qwen3_next import Qwen3NextGatedDeltaNet

    heads, n_key, n_value, C = 3, 6, 10, 16
    rule = moved(DeltaRule(C, heads, n_key, n_value, kernel_size=4))
    config = Qwen3NextConfig(
        hidden_size=C, num_hidden_layers=1, linear_num_value_heads=heads,
        linear_num_key_heads=heads, linear_key_head_dim=n_key, linear_value_head_dim=n_value,
        linear_conv_kernel_dim=4, rms_norm_eps=1e-5, layer_types=["linear_attention"],
    )  # fmt: skip
    theirs = Qwen3NextGatedDeltaNet(config, 0).eval()
    # Theirs holds q, k, v and z of a head together; ours all heads of each.
    parts = [heads * n_key, heads * n_key, heads * n_value, heads * n_value, heads, heads]
    q, k, v, z, beta, dt = (
        part.unflatten(0, (heads, -1)) for part in rule.expand.weight.split(parts)
    )
    theirs.load_state_dict(
        {
            "in_proj_qkvz.weight": torch.cat([q, k, v, z], 1).flatten(0, 1),
            "in_proj_ba.weight": torch.cat([beta, dt], 1).flatten(0, 1),
            "conv1d.weight": rule.conv.conv.weight,
            "dt_bias": rule.dt_bias,
            "A_log": rule.A_log,
            "norm.weight": rule.norm.weight,
            "out_proj.weight": rule.projection.weight,
        }
    )
    x = torch.randn(B, T, C)
    assert_close(rule(x, None, "", 0), theirs(x))


@torch.no_grad()
@pytest.mark.parametrize("open_gates", [False, True], ids=["as begun", "open"])
def test_mlstm_equals_transformers(open_gates: bool) -> None:
    """With open gates the normalizer is above 1, where it counts."""
    from transformers import xLSTMConfig, xLSTMForCausalLM

    C, heads, n_key, n_value = 32, 2, 8, 16
    model = moved(MLSTM(VOCAB, 2, heads, C, n_key, n_value, n_inner=64, tie_weights=False))
    if open_gates:
        for block in model.blocks:
            block.input_bias.add_(11.0)
    config = xLSTMConfig(
        vocab_size=VOCAB, hidden_size=C, num_hidden_layers=2, num_blocks=2, num_heads=heads,
        qk_dim_factor=0.5, v_dim_factor=1.0, ffn_proj_factor=2.0, ffn_round_up_to_multiple_of=64,
        gate_soft_cap=15.0, norm_eps=1e-5, weight_mode="single", use_bias=False,
        output_logit_soft_cap=1e9, chunk_size=16, tie_word_embeddings=False, eps=1e-12,
        chunkwise_kernel="chunkwise--native_autograd", sequence_kernel="native_sequence__native",
        step_kernel="native", autocast_kernel_dtype="float32", return_last_states=False,
    )  # fmt: skip
    theirs = xLSTMForCausalLM(config).eval()
    weights = {
        "backbone.embeddings.weight": model.token_embedding.weight,
        "backbone.out_norm.weight": model.norm.weight,
        "lm_head.weight": model.head.weight,
    }
    for number, block in enumerate(model.blocks):
        assert isinstance(block, MLSTMBlock)
        q, k, v, gate = block.expand.weight.split(block.widths)
        i, f = block.gates.weight.chunk(2)
        up, rest = block.feed_forward.expand.weight.chunk(2)
        layer = f"backbone.blocks.{number}."
        weights |= {
            f"{layer}norm_mlstm.weight": block.input_norm.weight,
            f"{layer}mlstm_layer.q.weight": q,
            f"{layer}mlstm_layer.k.weight": k,
            f"{layer}mlstm_layer.v.weight": v,
            f"{layer}mlstm_layer.ogate_preact.weight": gate,
            f"{layer}mlstm_layer.igate_preact.weight": i,
            f"{layer}mlstm_layer.igate_preact.bias": block.input_bias,
            f"{layer}mlstm_layer.fgate_preact.weight": f,
            f"{layer}mlstm_layer.fgate_preact.bias": block.forget_bias,
            f"{layer}mlstm_layer.multihead_norm.weight": block.norm_scale,
            f"{layer}mlstm_layer.out_proj.weight": block.projection.weight,
            f"{layer}norm_ffn.weight": block.feed_forward_norm.weight,
            f"{layer}ffn.proj_up_gate.weight": up,
            f"{layer}ffn.proj_up.weight": rest,
            f"{layer}ffn.proj_down.weight": block.feed_forward.projection.weight,
        }
    theirs.load_state_dict(weights)
    ids = random_ids(B, 64)
    assert_close(model(ids), theirs(ids, use_cache=False).logits)


@torch.no_grad()
def test_rwkv7_equals_its_equations() -> None:
    """Token by token from arXiv 2503.14456, section 4, in the paper's orientation of the state."""
    model = maker("rwkv7", "model.n_embd=12", "model.n_head=2", "model.n_rank=3")()
    ids = random_ids(B, T)
    for row in range(B):
        torch.testing.assert_close(
            model(ids)[row], rwkv7_by_hand(model, ids[row].tolist(), heads=2), rtol=0, atol=1e-9
        )


def rwkv7_by_hand(model: LanguageModel, ids: list[int], heads: int) -> Tensor:
    w = dict(model.state_dict())
    C = w["token_embedding.weight"].shape[1]
    N = C // heads
    layers = len(model.time_mixings)

    def norm(x: Tensor, name: str) -> Tensor:
        return F.layer_norm(x, (C,), w[f"{name}.weight"], w[f"{name}.bias"])

    states = [[torch.zeros(N, N).double() for _ in range(heads)] for _ in range(layers)]
    shifts = [[torch.zeros(C).double(), torch.zeros(C).double()] for _ in range(layers)]
    logits = []
    for token in ids:
        x = norm(w["token_embedding.weight"][token], "embedding_norm")
        for layer in range(layers):
            t, c = f"time_mixings.{layer}", f"channel_mixings.{layer}"

            def low_rank(name: str, given: Tensor, activation: Any, t: str = t) -> Tensor:
                return w[f"{t}.{name}.up.weight"] @ activation(w[f"{t}.{name}.down.weight"] @ given)

            def same(given: Tensor) -> Tensor:
                return given

            h = norm(x, f"{t}.input_norm")
            before, shifts[layer][0] = shifts[layer][0], h
            r_, w_, k_, v_, a_, g_ = (
                h + (before - h) * w[f"{t}.mixes.{name}"] for name in "rwkvag"
            )
            r, k = w[f"{t}.receptance.weight"] @ r_, w[f"{t}.key.weight"] @ k_
            v = w[f"{t}.value.weight"] @ v_
            d = w[f"{t}.decay_bias"] + low_rank("decay", w_, torch.tanh)
            decay = torch.exp(-math.exp(-0.5) * torch.sigmoid(d))
            a = torch.sigmoid(w[f"{t}.rate_bias"] + low_rank("rate", a_, same))
            g = low_rank("gate", g_, torch.sigmoid)
            if layer == 0:
                first = v
            else:
                nu = torch.sigmoid(w[f"{t}.value_mix_bias"] + low_rank("value_mix", v_, same))
                v = (1 - nu) * v + nu * first
            kappa = k * w[f"{t}.removed_scale"]
            k = k * (1 - w[f"{t}.key_rate"] + a * w[f"{t}.key_rate"])
            out = []
            for head in range(heads):
                part = slice(head * N, (head + 1) * N)
                unit = kappa[part] / kappa[part].norm()
                S = states[layer][head]  # values by keys
                S = S @ (torch.diag(decay[part]) - torch.outer(unit, a[part] * unit))
                S = S + torch.outer(v[part], k[part])
                states[layer][head] = S
                y = S @ r[part]
                y = (y - y.mean()) / (y.var(unbiased=False) + 64e-5).sqrt()
                y = y * w[f"{t}.norm.weight"][part] + w[f"{t}.norm.bias"][part]
                out.append(y + (r[part] * w[f"{t}.bonus"][part]) @ k[part] * v[part])
            x = x + w[f"{t}.projection.weight"] @ (torch.cat(out) * g)
            h = norm(x, f"{c}.input_norm")
            before, shifts[layer][1] = shifts[layer][1], h
            inner = w[f"{c}.expand.weight"] @ (h + (before - h) * w[f"{c}.mix"])
            x = x + w[f"{c}.projection.weight"] @ F.relu(inner) ** 2
        logits.append(w["head.weight"] @ norm(x, "norm"))
    return torch.stack(logits)
