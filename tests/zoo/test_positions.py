"""Where a token is: closed forms of every way to tell it, and how far each goes."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.zoo_models import VOCAB, random_ids, randomize
from zoo.gpt import GPT
from zoo.layers.attention import attend
from zoo.layers.positions import alibi_bias, alibi_slopes, sinusoids

WAYS = ("learned", "sinusoidal", "rope", "alibi", "none")


def gpt(positions: str, **options: Any) -> GPT:
    sizes: dict[str, Any] = {"block_size": 12, "n_layer": 1, "n_head": 4, "n_embd": 16}
    model = GPT(VOCAB, **(sizes | options), positions=positions)  # type: ignore[arg-type]
    return randomize(model.double().eval())


def test_sinusoids_are_those_of_the_paper() -> None:
    found = sinusoids(torch.tensor([0, 1, 700]), 6, torch.float64)
    for row, position in zip(found, (0, 1, 700), strict=True):
        for i in range(3):
            angle = position / 10000 ** (2 * i / 6)
            assert row[2 * i].item() == pytest.approx(math.sin(angle), abs=1e-12)
            assert row[2 * i + 1].item() == pytest.approx(math.cos(angle), abs=1e-12)
    # A shift is a rotation, whatever the position (section 3.5), and an odd width has its last.
    a, b = (sinusoids(torch.arange(at, at + 9), 8, torch.float64) for at in (0, 40))
    assert torch.allclose(a @ a.T, b @ b.T, atol=1e-12)
    assert sinusoids(torch.arange(4), 5, torch.float64).shape == (4, 5)


def test_slopes_are_those_of_the_paper() -> None:
    assert alibi_slopes(8) == [2.0**-h for h in range(1, 9)]
    assert alibi_slopes(4) == [2.0**-2, 2.0**-4, 2.0**-6, 2.0**-8]
    # As the authors' code has them for 6 heads: those of 4, and two of those of 8.
    assert alibi_slopes(6) == [2.0**-2, 2.0**-4, 2.0**-6, 2.0**-8, 2.0**-1, 2.0**-3]
    assert alibi_slopes(1) == [2.0**-8]


@pytest.mark.parametrize(("time", "band"), [(5, None), (1, None), (3, None), (5, 2), (1, 2)])
def test_alibi_attention_is_the_formula(time: int, band: int | None) -> None:
    """softmax(q·k/√D - slope·distance), one query and key at a time."""
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, 2, n, 4, dtype=torch.float64) for n in (time, 5, 5))
    slopes = [0.5, 0.25]
    found = attend(q, k, v, 0.0, band, slopes)
    for h, slope in enumerate(slopes):
        for t in range(time):
            at = 5 - time + t
            seen = range(0 if band is None else max(0, at - band + 1), at + 1)
            scores = torch.stack([q[0, h, t] @ k[0, h, s] / 2 - slope * (at - s) for s in seen])
            right = sum((w * v[0, h, s] for w, s in zip(scores.softmax(0), seen, strict=True)),
                        torch.zeros(4, dtype=torch.float64))  # fmt: skip
            assert torch.allclose(found[0, h, t], right, atol=1e-12)
    assert alibi_bias(slopes, 1, 1, q).tolist() == [[[0.0]], [[0.0]]]


@pytest.mark.parametrize("positions", WAYS)
def test_one_layer_tells_the_order_only_by_its_positions(positions: str) -> None:
    """Without them it sees the bag of earlier tokens."""
    model, ids = gpt(positions), random_ids(1, 8)
    mixed = torch.cat([ids[:, [3, 0, 5, 2, 6, 1, 4]], ids[:, 7:]], dim=1)
    gap = (model(ids)[:, -1] - model(mixed)[:, -1]).abs().max().item()
    assert (gap < 1e-12) == (positions == "none")


@pytest.mark.parametrize("positions", WAYS)
def test_all_but_learned_ones_hold_beyond_the_trained_length(positions: str) -> None:
    """The weights are those of a longer model, which computes the same within the length."""
    short, ids = gpt(positions, n_layer=2), random_ids(2, 30)
    longer = gpt(positions, n_layer=2, block_size=30)
    if positions == "learned":
        with pytest.raises(RuntimeError, match="size mismatch for position_embedding"):
            longer.load_state_dict(short.state_dict())
        return
    longer.load_state_dict(short.state_dict())
    assert torch.allclose(longer(ids)[:, :12], short(ids[:, :12]), atol=1e-12)
    cache, parts = longer.init_cache(2), list[Tensor]()
    for part in ids.split([11, 1, 1, 17], dim=1):
        parts.append(longer(part, cache))
    assert torch.allclose(torch.cat(parts, dim=1), longer(ids), atol=1e-10)


def test_rotary_and_alibi_know_distances_alone() -> None:
    """Shifting a text by a token in front of a banded layer changes nothing out of its sight."""
    ids, front = random_ids(1, 9), random_ids(1, 3)
    shifted = torch.cat([front, ids], dim=1)
    for positions in WAYS:
        model = gpt(positions, bands=[3], block_size=16)
        gap = (model(ids)[:, 4:] - model(shifted)[:, 7:]).abs().max().item()
        assert (gap < 1e-12) == (positions in ("rope", "alibi", "none")), positions


def test_null_is_what_it_was() -> None:
    sizes: dict[str, Any] = {"block_size": 12, "n_layer": 1, "n_head": 4, "n_embd": 16}
    assert GPT(VOCAB, **sizes).positions == "learned"
    assert GPT(VOCAB, **sizes, rotary_theta=100.0).positions == "rope"
    assert GPT(VOCAB, **sizes, rotary_theta=100.0).blocks[0].attention.rotary_theta == 100.0
    assert GPT(VOCAB, **sizes, positions="rope").blocks[0].attention.rotary_theta == 10000.0
    alibi = GPT(VOCAB, **sizes, rotary_theta=100.0, positions="alibi")
    assert alibi.blocks[0].attention.rotary_theta is None
