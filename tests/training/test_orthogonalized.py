"""Muon's orthogonalization: the published one, and ours."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import pytest
import torch
from torch import Tensor

from harness.training import muon
from harness.training.muon import PUBLISHED, QUINTICS

Iterations = Literal[3, 5]


def orthogonalized(matrices: Tensor, iterations: Iterations, dtype: torch.dtype) -> Tensor:
    """Of a single stack."""
    stacks = [matrices.to(dtype)]
    muon.orthogonalize(stacks, iterations)
    return stacks[0]


def polynomial(x: Tensor, coefficients: tuple[float, float, float]) -> Tensor:
    a, b, c = coefficients
    return a * x + b * x**3 + c * x**5


def expected_of(matrices: Tensor, iterations: Iterations) -> Tensor:
    """By the singular values, in float64, over their 2-norm (published) or 8-norm (ours)."""
    left, singular, right = torch.linalg.svd(matrices.double(), full_matrices=False)
    if iterations == 5:
        singular = singular / singular.norm(dim=1, keepdim=True).clamp(min=1e-7)
    else:
        singular = singular / singular.norm(8, dim=1, keepdim=True).clamp(min=1e-7)
    for coefficients in (PUBLISHED,) * 5 if iterations == 5 else QUINTICS:
        singular = polynomial(singular / (1 if iterations == 5 else 1.03), coefficients)
    return left @ torch.diag_embed(singular) @ right


SHAPES = [(3, 6, 4), (3, 4, 6), (2, 5, 5), (2, 9, 4), (2, 4, 9), (1, 1, 3), (2, 3, 1)]


@pytest.mark.parametrize("iterations", [3, 5])
@pytest.mark.parametrize("shape", SHAPES)
def test_orthogonalized_is_polynomials_of_each_singular_value(
    shape: tuple[int, int, int], iterations: Iterations
) -> None:
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    found = orthogonalized(matrices, iterations, torch.float32).double()
    torch.testing.assert_close(found, expected_of(matrices, iterations), rtol=1e-4, atol=1e-5)


def test_the_published_coefficients_are_those_of_torch() -> None:
    group = torch.optim.Muon([torch.nn.Parameter(torch.zeros(2, 2))]).defaults
    assert (group["ns_coefficients"], group["ns_steps"]) == (PUBLISHED, 5)


def test_each_quintic_is_the_nearest_to_one_on_what_is_left() -> None:
    """Chebyshev's alternation: a best approximation of three coefficients misses by as much, above
    and below in turn, at four points."""
    low, high = 0.01, 1.0
    for coefficients in QUINTICS:
        x = torch.linspace(low, high, 200_001, dtype=torch.float64)
        missed = (polynomial(x, coefficients) - 1).numpy()
        apart = np.split(missed, np.flatnonzero(np.diff(np.sign(missed))) + 1)
        peaks = [part[np.abs(part).argmax()] for part in apart]
        most = np.abs(missed).max()
        np.testing.assert_allclose(peaks, [-most, most, -most, most], rtol=1e-4)
        low, high = 1 - most, 1 + most
    assert high == pytest.approx(1.269, abs=1e-3)


def of_singular_values(values: Tensor, columns: int) -> Tensor:
    """A matrix of these singular values, (1, values, columns), in float64."""
    rows = len(values)
    left, _ = torch.linalg.qr(torch.randn(rows, rows, dtype=torch.float64))
    right, _ = torch.linalg.qr(torch.randn(columns, rows, dtype=torch.float64))
    return (left @ values.double().diag() @ right.T)[None]


SPECTRA = [
    torch.logspace(0, -8, 64),
    torch.logspace(0, -3, 64),
    1 / torch.arange(1, 65),
    torch.eye(64)[0],  # rank 1
    (torch.arange(64) < 8).float(),
    torch.zeros(64),
    torch.ones(64),
]


@pytest.mark.parametrize("iterations", [3, 5])
@pytest.mark.parametrize("values", SPECTRA)
@pytest.mark.parametrize("columns", [64, 256])
def test_singular_values_of_every_size_come_out_as_in_float64(
    values: Tensor, columns: int, iterations: Iterations
) -> None:
    """A gradient may have few directions, and all others far below the rounding of its Gram
    matrix, whose eigenvalues may then come out negative."""
    matrix = of_singular_values(values, columns)
    exact = expected_of(matrix, iterations)
    norm = torch.linalg.matrix_norm
    found = orthogonalized(matrix.float(), iterations, torch.float32).double()
    assert norm(found - exact) <= 1e-4 * norm(exact)
    rounded = orthogonalized(matrix.float(), iterations, torch.bfloat16).double()
    error = norm(rounded - exact) / norm(exact).clamp(min=1e-9)
    if iterations == 3:
        assert error < 0.2
    else:  # of rank 1 and 8 as published: the null directions' rounding grows by 3.4445⁵
        assert error < (1.5 if (values > 1e-9).sum() < 64 else 0.25)


def with_rows_of_sizes(least: float) -> Tensor:
    return torch.logspace(0, math.log10(least), 8)[:, None] * torch.randn(200, 8, 128)


@pytest.mark.parametrize("iterations", [3, 5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_no_singular_value_comes_out_large(dtype: torch.dtype, iterations: Iterations) -> None:
    """Where a polynomial's peak is the end of the next one's interval, and it is rounded up, and
    where the rounding of large ones passes into small ones: they came out as 2 to 90."""
    torch.manual_seed(0)
    random = [torch.randn(max(1, 2000 // side**2), side, side) for side in (1, 2, 4, 16, 64, 256)]
    for matrices in (
        *random,
        torch.randn(500, 4, 2) @ torch.randn(500, 2, 128),
        torch.randn(500, 4, 3) @ torch.randn(500, 3, 7),
        with_rows_of_sizes(1e-2),
        with_rows_of_sizes(1e-4),
        torch.randn(1, 1, 5000),
    ):
        found = orthogonalized(matrices, iterations, dtype).float()
        assert torch.linalg.matrix_norm(found, ord=2).max() < 1.4


@pytest.mark.parametrize("rounded", ["nothing", "bf16", "by torch", "by the environment"])
def test_where_products_are_rounded_the_gram_matrix_is_made_anew(
    rounded: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if rounded == "by torch":
        monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda: "high")
    if rounded == "by the environment":
        monkeypatch.setenv("ONEDNN_DEFAULT_FPMATH_MODE", "BF16")
    made: list[list[int]] = []
    own = muon._grams

    def watched(stacks: list[Tensor], numbers: list[int]) -> Tensor:
        made.append(numbers)
        return own(stacks, numbers)

    monkeypatch.setattr(muon, "_grams", watched)
    dtype = torch.bfloat16 if rounded == "bf16" else torch.float32
    shapes = (1, 4, 7), (1, 64, 100), (2, 9, 4)
    muon.orthogonalize([torch.randn(shape).to(dtype) for shape in shapes], 3)
    times = 1 if rounded == "nothing" else 2
    assert made == [[0, 2]] * times + [[1]] * times


@pytest.mark.parametrize("rank", [1, 8, 512])
@pytest.mark.parametrize("columns", [512, 1536])
def test_nor_do_large_matrices_differ_from_float64(rank: int, columns: int) -> None:
    """Of few directions rounding grows into others."""
    values = (torch.arange(512) < rank).double() + 1e-3 * torch.rand(512).double()
    matrix = of_singular_values(values, columns)
    exact = orthogonalized(matrix, 3, torch.float64)
    error = torch.linalg.matrix_norm(orthogonalized(matrix.float(), 3, torch.float32) - exact)
    assert error < 1e-4 * torch.linalg.matrix_norm(exact)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("size", [2**-24, 2**-10, 2**10, 2**40])
def test_a_gradients_size_plays_no_part(size: float, dtype: torch.dtype) -> None:
    matrices = torch.randn(2, 32, 48, generator=torch.Generator().manual_seed(0)).to(dtype)
    expected = orthogonalized(matrices, 3, dtype)
    torch.testing.assert_close(orthogonalized(matrices * size, 3, dtype), expected)


@pytest.mark.parametrize("iterations", [3, 5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_no_gradient_gives_no_update(iterations: Iterations, dtype: torch.dtype) -> None:
    for size in (0.0, 1e-30):
        found = orthogonalized(torch.full((1, 8, 12), size), iterations, dtype)
        assert found.abs().max() < 1e-12


@pytest.mark.parametrize("iterations", [3, 5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_together_matrices_become_what_they_become_alone(
    dtype: torch.dtype, iterations: Iterations
) -> None:
    """Square, long, tall and of another side, in this order again."""
    shapes = (2, 64, 200), (1, 64, 64), (3, 96, 64), (1, 100, 64), (2, 128, 200), (1, 5, 9)
    stacks = [torch.randn(shape, generator=torch.Generator().manual_seed(0)) for shape in shapes]
    together = [stack.to(dtype) for stack in stacks]
    muon.orthogonalize(together, iterations)
    for found, stack in zip(together, stacks, strict=True):
        assert found.dtype == dtype
        alone = orthogonalized(stack, iterations, dtype)
        tolerance = 1e-5 if dtype == torch.float32 else 1e-2  # sums in another order
        torch.testing.assert_close(found, alone, rtol=tolerance, atol=tolerance)
