"""Attention in every precision is attention, whichever products compute it."""

from __future__ import annotations

from itertools import product

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.layers import attention

CASES = list(product(("all", "the past", "band"), (6, 2), (None, [0.5, 0.25, 0.1] * 2)))


def with_gradients(
    tensors: list[Tensor], band: int | None, slopes: list[float] | None
) -> list[Tensor]:
    """What attention gives, and the gradients of its sum of squares."""
    tensors = [tensor.requires_grad_() for tensor in tensors]
    y = attention.attend(*tensors, 0.0, band, slopes)
    return [y.detach(), *torch.autograd.grad(y.square().sum(), tensors)]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize(("seen", "groups", "slopes"), CASES)
def test_attention_is_that_of_its_inputs_but_for_rounding(
    seen: str, groups: int, slopes: list[float] | None, dtype: torch.dtype
) -> None:
    """Outputs and gradients, against torch's own attention in float64 of the same inputs: shared
    keys, slopes, a past."""
    torch.manual_seed(0)
    band = 4 if seen == "band" else None
    sizes = [
        (6, 10),
        (groups, 10 + 3 * (seen == "the past")),
        (groups, 10 + 3 * (seen == "the past")),
    ]
    given = [torch.randn(2, heads, time, 8).to(dtype) for heads, time in sizes]
    exact = with_gradients([x.double() for x in given], band, slopes)
    for found, right in zip(with_gradients(given, band, slopes), exact, strict=True):
        assert found.dtype == dtype
        error = (found - right).norm() / right.norm()
        assert 0 < error < {torch.bfloat16: 2**-7, torch.float32: 2**-20}[dtype]


def test_on_a_cpu_few_keys_are_not_given_to_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own way takes up to three times as long there. Many keys are: all scores would not fit;
    and a single query in fp32; and float64, which the others are compared with."""
    given = list[tuple[torch.dtype, int]]()
    own = F.scaled_dot_product_attention

    def told(q: Tensor, k: Tensor, *rest: object, **named: object) -> Tensor:
        given.append((k.dtype, k.shape[2]))
        return own(q, k, *rest, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(attention.F, "scaled_dot_product_attention", told)
    most = {
        torch.bfloat16: attention.SHORT_BF16, torch.float32: attention.SHORT, torch.float64: 0
    }  # fmt: skip
    for dtype, keys in most.items():
        for time in (1, keys, keys + 1):
            x = torch.randn(1, 1, time, 4, dtype=dtype)
            attention.attend(x, x, x)
    assert given == [
        (torch.bfloat16, attention.SHORT_BF16 + 1), (torch.float32, 1),
        (torch.float32, attention.SHORT + 1), (torch.float64, 1), (torch.float64, 0),
        (torch.float64, 1),
    ]  # fmt: skip


def test_few_keys_of_many_rows_are_given_to_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """All their scores would be kept for the backward pass."""
    monkeypatch.setattr(attention, "MOST_SCORES", 2 * 3 * 8 * 8)
    given = list[int]()
    monkeypatch.setattr(
        attention.F, "scaled_dot_product_attention", lambda q, *rest, **named: given.append(len(q))
    )
    for rows in (2, 3):
        x = torch.randn(rows, 3, 8, 4)
        attention.attend(x, x, x)
    assert given == [3]


def test_weights_rounded_to_bf16_still_sum_to_one() -> None:
    """Of as many keys as there are at most, all alike: each weight is a rounded 1/512."""
    q = torch.zeros(1, 1, 1, 4).bfloat16()
    ones = torch.ones(1, 1, attention.SHORT_BF16, 4).bfloat16()
    assert attention.attend(q, ones, ones).tolist() == [[[[1.0] * 4]]]
    odd = torch.ones(1, 1, 300, 4).bfloat16()
    assert attention.attend(q, odd, odd).flatten().tolist() == pytest.approx([1.0] * 4, rel=2**-7)


def test_sharp_scores_of_many_keys_lose_no_more_than_their_rounding() -> None:
    """Scores of 20 and more: what is lost is that of 8 bits, at the most keys there are."""
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 1, 2, attention.SHORT_BF16, 64).bfloat16()
    q = 6 * q
    exact = attention.attend(q.double(), k.double(), v.double())
    error = (attention.attend(q, k, v) - exact).norm() / exact.norm()
    assert 2**-9 < error < 2**-6
