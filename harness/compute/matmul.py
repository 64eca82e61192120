"""What multiplies fp32 matrices on a CPU: torch's BLAS, or oneDNN where that is faster.

torch gives fp32 products to the BLAS it was built with (MKL on x86) and bf16 ones to oneDNN. MKL
uses a processor of another maker at half its rate; oneDNN asks the processor alone.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, library, nn

Matmul = Literal["blas", "onednn"]
# Below both, the way through Python takes longer than what is gained. Few rows are a matter of
# reading the second matrix, which MKL does with one thread: from so many numbers on.
LEAST_WORK, LEAST_READ = 1 << 20, 1 << 18

_ONEDNN: Any = getattr(torch.ops.mkldnn, "_linear_pointwise", None)
_FP32 = torch.float32  # whatever anyone makes of torch's name later
_overriding: list[library.Library] = []


def has_onednn() -> bool:
    """Whether this build of torch can multiply by oneDNN."""
    return torch.backends.mkldnn.is_available() and _ONEDNN is not None


def use_matmul(name: Matmul) -> None:
    """From now on, in the whole process, forward and backward."""
    if name == current_matmul():
        return
    if name == "blas":
        _overriding.pop()._destroy()
        return
    ours = library.Library("aten", "IMPL")
    with warnings.catch_warnings():  # that torch's own kernels are overridden
        warnings.simplefilter("ignore", UserWarning)
        ours.impl("mm", _mm, "CPU")
        ours.impl("addmm", _addmm, "CPU")
    _overriding.append(ours)


@contextmanager
def blas_for_small(model: nn.Module) -> Iterator[None]:
    """Around single tokens: where no weight is worth oneDNN, the way through Python takes longer
    than the products."""
    before = current_matmul()
    if all(weight.numel() < LEAST_READ for weight in model.parameters()):
        use_matmul("blas")
    try:
        yield
    finally:
        use_matmul(before)


def current_matmul() -> Matmul:
    """What the process uses."""
    return "onednn" if _overriding else "blas"


def _mm(a_MK: Tensor, b_KN: Tensor) -> Tensor:
    return by_onednn(a_MK, b_KN, None) if _is_worth_it(a_MK, b_KN) else by_blas(a_MK, b_KN)


def _addmm(
    c: Tensor, a_MK: Tensor, b_KN: Tensor, *, beta: complex = 1, alpha: complex = 1
) -> Tensor:
    plain = beta == alpha == 1 and c.dim() == 1 and c.is_contiguous()
    if plain and c.dtype == a_MK.dtype and _is_worth_it(a_MK, b_KN) and len(c) == b_KN.shape[1]:
        return by_onednn(a_MK, b_KN, c)
    return torch.addmm(c, a_MK, b_KN, beta=beta, alpha=alpha, out=_empty(a_MK, b_KN))


def _is_worth_it(a_MK: Tensor, b_KN: Tensor) -> bool:
    if a_MK.dim() != 2 or b_KN.dim() != 2:
        return False
    (rows, inner), columns = a_MK.shape, b_KN.shape[1]
    return (
        a_MK.dtype == b_KN.dtype == _FP32
        and rows > 0
        and (rows * inner * columns >= LEAST_WORK or inner * columns >= LEAST_READ)
        and inner == len(b_KN)
        and all(x.is_contiguous() or x.t().is_contiguous() for x in (a_MK, b_KN))
    )


def by_onednn(a_MK: Tensor, b_KN: Tensor, c_N: Tensor | None) -> Tensor:
    # It copies a transposed first matrix, a gradient's, which takes as long as the product. Where
    # the second and the product are much smaller, it is turned round, and those are copied.
    small = 2 * b_KN.shape[1] <= min(a_MK.shape)
    if c_N is None and not a_MK.is_contiguous() and small:
        return _by_onednn(b_KN.t(), a_MK.t(), None).t().contiguous()
    return _by_onednn(a_MK, b_KN, c_N)


def _by_onednn(a_MK: Tensor, b_KN: Tensor, c_N: Tensor | None) -> Tensor:
    product: Tensor = _ONEDNN.default(a_MK, b_KN.t(), c_N, "none", [], "")
    return product


def by_blas(a_MK: Tensor, b_KN: Tensor) -> Tensor:
    """As torch does without us: the variant with `out` is another kernel, which stays its own."""
    return torch.mm(a_MK, b_KN, out=_empty(a_MK, b_KN))


def _empty(a: Tensor, b: Tensor) -> Tensor:
    """For their product; for what are no matrices torch says so itself."""
    return a.new_empty(len(a), b.shape[1]) if a.dim() == b.dim() == 2 else a.new_empty(0)
