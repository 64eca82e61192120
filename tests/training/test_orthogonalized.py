"""Muon's orthogonalization, in both of its forms."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from harness.training import muon
from harness.training.muon import symmetric


def orthogonalized(matrices: Tensor, dtype: torch.dtype) -> Tensor:
    """Of a single stack."""
    stacks = [matrices.to(dtype)]
    muon.orthogonalize(stacks)
    return stacks[0]


@pytest.mark.parametrize("shape", [(3, 6, 4), (3, 4, 6), (2, 5, 5), (2, 9, 4), (2, 4, 9)])
def test_orthogonalized_is_the_polynomial_of_each_singular_value(
    shape: tuple[int, int, int],
) -> None:
    """Five times a·s + b·s³ + c·s⁵, from s over the matrix's Frobenius norm."""
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    left, singular, right = torch.linalg.svd(matrices.double(), full_matrices=False)
    singular = singular / singular.norm(dim=1, keepdim=True)
    for _ in range(5):
        singular = 3.4445 * singular - 4.775 * singular**3 + 2.0315 * singular**5
    expected = left @ torch.diag_embed(singular) @ right
    torch.testing.assert_close(
        orthogonalized(matrices, torch.float32).double(), expected, rtol=1e-4, atol=1e-5
    )


def of_singular_values(values: Tensor, columns: int) -> Tensor:
    """A matrix of these singular values, (1, values, columns), in float64."""
    rows = len(values)
    left, _ = torch.linalg.qr(torch.randn(rows, rows, dtype=torch.float64))
    right, _ = torch.linalg.qr(torch.randn(columns, rows, dtype=torch.float64))
    return (left @ values.double().diag() @ right.T)[None]


@pytest.mark.parametrize(
    "values",
    [
        torch.logspace(0, -8, 64),
        torch.logspace(0, -3, 64),
        torch.eye(64)[0],  # rank 1
        torch.zeros(64),
        torch.ones(64),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_singular_values_of_every_size_come_out_as_in_float64(
    values: Tensor, dtype: torch.dtype
) -> None:
    """A gradient may have few directions, and all others far below the rounding of its Gram
    matrix, whose eigenvalues may then come out negative."""
    matrix = of_singular_values(values, 256)
    exact = orthogonalized(matrix, torch.float64)
    atol = 1e-4 if dtype == torch.float32 else 0.1
    found = orthogonalized(matrix.float(), dtype).double()
    assert torch.linalg.matrix_norm(found - exact, ord=2).item() < 30 * atol
    torch.testing.assert_close(found, exact, rtol=0, atol=atol)


@pytest.mark.parametrize("rank", [1, 8, 512])
@pytest.mark.parametrize("columns", [512, 1536])
def test_nor_do_large_matrices_differ_from_float64(rank: int, columns: int) -> None:
    """What is computed in bands and mirrored: of few directions rounding grows into others."""
    values = (torch.arange(512) < rank).double() + 1e-3 * torch.rand(512).double()
    matrix = of_singular_values(values, columns)
    exact = orthogonalized(matrix, torch.float64)
    error = torch.linalg.matrix_norm(orthogonalized(matrix.float(), torch.float32) - exact)
    assert error < 1e-3 * torch.linalg.matrix_norm(exact)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_together_matrices_become_what_they_become_alone(dtype: torch.dtype) -> None:
    """Square, long, short and of another side, in this order again."""
    shapes = (2, 64, 200), (1, 64, 64), (3, 96, 64), (1, 100, 64), (2, 128, 200), (1, 5, 9)
    stacks = [torch.randn(shape, generator=torch.Generator().manual_seed(0)) for shape in shapes]
    together = [stack.to(dtype) for stack in stacks]
    muon.orthogonalize(together)
    for found, stack in zip(together, stacks, strict=True):
        assert found.dtype == dtype
        alone = orthogonalized(stack, dtype)
        tolerance = 1e-5 if dtype == torch.float32 else 1e-2  # sums in another order
        torch.testing.assert_close(found, alone, rtol=tolerance, atol=tolerance)


@pytest.fixture
def by_gram(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[tuple[int, ...]], int]]:
    """The shapes and the iterations of each call of the form of fewer products."""
    taken: list[tuple[list[tuple[int, ...]], int]] = []
    own = muon._polynomials

    def watched(stacks: list[Tensor], iterations: int) -> tuple[Tensor, ...]:
        taken.append(([tuple(x.shape) for x in stacks], iterations))
        return own(stacks, iterations)

    monkeypatch.setattr(muon, "_polynomials", watched)
    return taken


def test_the_form_of_fewer_products_is_that_of_long_matrices(
    by_gram: list[tuple[list[tuple[int, ...]], int]],
) -> None:
    shapes = (1, 6, 4), (1, 7, 4), (2, 4, 9), (1, 4, 4), (1, 3, 9)
    muon.orthogonalize([torch.randn(shape) for shape in shapes])
    assert by_gram == [([(1, 4, 7), (2, 4, 9)], 5), ([(1, 3, 9)], 5)]


@pytest.mark.parametrize("rounded", ["bf16", "by torch", "by the environment"])
def test_where_products_are_rounded_the_gram_matrix_is_made_anew(
    rounded: str,
    by_gram: list[tuple[list[tuple[int, ...]], int]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of factors of 8 or 10 bits five iterations on one Gram matrix make up directions."""
    if rounded == "by torch":
        monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda: "high")
    if rounded == "by the environment":
        monkeypatch.setenv("ONEDNN_DEFAULT_FPMATH_MODE", "BF16")
    dtype = torch.bfloat16 if rounded == "bf16" else torch.float32
    muon.orthogonalize([torch.randn(shape).to(dtype) for shape in ((1, 4, 7), (1, 64, 100))])
    assert by_gram == [([(1, 64, 100)], 3), ([(1, 64, 100)], 2)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("size", [1, 255, 256, 300, 512])
def test_a_symmetric_product_is_the_product(size: int, dtype: torch.dtype) -> None:
    """Also of sizes that are no multiple of its bands, and mirrored exactly."""
    x = torch.randn(2, size, 7).to(dtype)
    whole = x.double() @ x.double().mT
    c = torch.randn(2, size, size).to(dtype)
    c = c + c.mT
    tolerance = 1e-5 if dtype == torch.float32 else torch.finfo(dtype).resolution
    for found, expected in (
        (symmetric(x, x.mT), whole),
        (symmetric(x, x.mT, c, beta=0.5, alpha=-2.0), 0.5 * c.double() - 2 * whole),
    ):
        torch.testing.assert_close(found.double(), expected, rtol=tolerance, atol=tolerance * 30)
        if dtype == torch.float32 and size >= 256:
            assert torch.equal(found, found.mT)
