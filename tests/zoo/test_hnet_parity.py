"""H-Net against a loop over tokens, written from the papers' equations, in float64."""

from __future__ import annotations

import cmath
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.zoo.test_hnet import small
from tests.zoo_models import random_ids
from zoo.hnet import HNet


class Loop:
    """One token after the other, with lists for a past, from the paper's equations; Mamba-2's from
    its own (2405.21060, section 7.1)."""

    def __init__(self, model: HNet) -> None:
        self.model = model
        self.pasts: dict[str, list[Any]] = {}
        self.states: dict[str, Tensor] = {}
        self.before: Tensor | None = None
        self.chunks = 0
        self.smoothed = torch.zeros(16, dtype=torch.float64)

    @staticmethod
    def norm(x: Tensor, module: Any) -> Tensor:
        return x / (x.square().mean() + 1e-5).sqrt() * module.weight

    def mamba2(self, name: str, x: Tensor) -> Tensor:
        block: Any = self.model.get_submodule(name)
        inner, state = 32, 6
        expanded = block.expand.weight @ self.norm(x, block.input_norm)
        gate, mixed, dt = expanded.split([inner, inner + 2 * state, inner // 8])
        past = self.pasts.setdefault(name, [torch.zeros_like(mixed)] * 3)
        past.append(mixed)
        taps = block.conv.conv.weight[:, 0]
        mixed = F.silu(block.conv.conv.bias + sum(taps[:, tap] * past[tap - 4] for tap in range(4)))
        v, b, c = mixed.split([inner, state, state])
        dt = (1 + (dt + block.dt_bias).exp()).log()
        outputs = []
        for head in range(inner // 8):
            value = v[8 * head : 8 * head + 8]
            kept = self.states.get(f"{name}.{head}", torch.zeros(state, 8, dtype=x.dtype))
            kept = torch.exp(-dt[head] * block.A_log[head].exp()) * kept
            kept = kept + torch.outer(b, dt[head] * value)
            self.states[f"{name}.{head}"] = kept
            outputs.append(c @ kept + block.skip[head] * value)
        y = self.norm(torch.cat(outputs) * F.silu(gate), block.norm)
        return x + block.projection.weight @ y

    def transformer(self, name: str, x: Tensor) -> Tensor:
        block: Any = self.model.get_submodule(name)

        def turned(each: Tensor) -> Tensor:
            pairs = [
                complex(*pair) * cmath.exp(1j * self.chunks * 10000 ** (-i / 6))
                for i, pair in enumerate(zip(each[:6].tolist(), each[6:].tolist(), strict=True))
            ]
            parts = [pair.real for pair in pairs] + [pair.imag for pair in pairs]
            return torch.tensor(parts, dtype=each.dtype)

        qkv = block.attention.qkv.weight @ self.norm(x, block.attention_norm)
        q, k, v = qkv.chunk(3)
        heads = []
        for head in range(2):
            part = slice(12 * head, 12 * head + 12)
            past = self.pasts.setdefault(f"{name}.{head}", [])
            past.append((turned(k[part]), v[part]))
            query = turned(q[part])
            weights = torch.stack([query @ key for key, _ in past]) / 12**0.5
            heads.append(weights.softmax(0) @ torch.stack([value for _, value in past]))
        x = x + block.attention.projection.weight @ torch.cat(heads)
        inner = block.feed_forward.expand.weight @ self.norm(x, block.feed_forward_norm)
        gate, up = inner.chunk(2)
        return x + block.feed_forward.projection.weight @ (F.silu(gate) * up)

    def __call__(self, token: int) -> Tensor:
        """The logits behind it, (V,)."""
        model = self.model
        x = model.token_embedding.weight[token]
        for layer in range(2):
            x = self.mamba2(f"encoder.{layer}", x)
        x = self.norm(x, model.encoder_norm)
        p = 1.0
        if self.before is not None:
            q, k = model.router.query.weight @ x, model.router.key.weight @ self.before
            p = 0.5 * (1 - (q @ k / (q.norm() * k.norm())).item())
        self.before = x
        if p >= 0.5 and self.chunks < model.n_chunk:
            y = torch.cat([x, model.widening])
            for layer in range(2):
                y = self.transformer(f"main.{layer}", y)
            y = self.norm(y, model.main_norm)[:16]
            p = min(p, 1 - 1e-4)
            self.smoothed = p * y + (1 - p) * self.smoothed
            self.chunks += 1
        x = self.smoothed + model.skip.weight @ x
        x = self.mamba2("decoder.0", x)
        return model.head.weight @ self.norm(x, model.norm)


@torch.no_grad()
@pytest.mark.parametrize("n_chunk", [40, 9])
def test_equals_a_loop_over_tokens(n_chunk: int) -> None:
    """Rows whose chunks begin at different places; with a bound, more than it allows."""
    model, ids = small(n_chunk=n_chunk), random_ids(2, 40)
    loops = [Loop(model) for _ in ids]
    expected = torch.stack(
        [torch.stack(list(map(loop, row))) for loop, row in zip(loops, ids.tolist(), strict=True)]
    )
    counts = [loop.chunks for loop in loops]
    assert counts == [9, 9] if n_chunk == 9 else 9 < min(counts) < max(counts) < 40
    torch.testing.assert_close(model(ids), expected, rtol=0, atol=1e-10)
    for cuts in ([], [1, 2, 3], [5, 21], list(range(1, 40))):
        cache = model.init_cache(2)
        parts = [model(part, cache) for part in ids.tensor_split(cuts, dim=1)]
        torch.testing.assert_close(torch.cat(parts, dim=1), expected, rtol=0, atol=1e-10)
        assert cache.tensors["chunks"].tolist() == counts
