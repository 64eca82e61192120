"""Muon's orthogonalization, in both of its forms."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from harness.training import muon
from harness.training.muon import orthogonalized


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


def test_the_form_of_fewer_products_is_that_of_long_matrices_in_fp32(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    taken = []
    own = muon._by_gram
    monkeypatch.setattr(muon, "_by_gram", lambda x: taken.append(tuple(x.shape)) or own(x))
    for shape in ((1, 6, 4), (1, 7, 4), (1, 4, 7), (1, 4, 4)):
        orthogonalized(torch.randn(shape), torch.float32)
        orthogonalized(torch.randn(shape), torch.bfloat16)
    assert taken == [(1, 4, 7), (1, 4, 7)]


@pytest.mark.parametrize("rounded", ["by torch", "by the environment"])
def test_where_fp32_is_rounded_it_is_the_published_form(
    rounded: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with TF32: of factors of 10 bits the form of fewer products makes up directions."""
    monkeypatch.setattr(muon, "_by_gram", lambda x: pytest.fail("by its Gram matrix"))
    if rounded == "by torch":
        monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda: "high")
    else:
        monkeypatch.setenv("ONEDNN_DEFAULT_FPMATH_MODE", "BF16")
    orthogonalized(torch.randn(1, 4, 7), torch.float32)
