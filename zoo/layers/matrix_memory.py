"""Recurrences whose state is a matrix of keys by values, computed in chunks.

Within a chunk they are masked matrix products, as in attention; from chunk to chunk a state is
handed on (Hua et al. 2022, arXiv 2202.10447, section 3.3; Yang et al. 2023, arXiv 2312.06635,
section 2). One token is a chunk of one, so decoding is the same code.

B batch, H heads, T time, N channels of a key, D channels of a value, K chunks of L positions.
All are computed in at least fp32, also under autocast: decays multiply over the whole text.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.layers import fla_kernels

Memory = tuple[Tensor, Tensor | None]
"""What each position reads, (B, H, T, D), and the state after the last, (B, H, N, D). Given None
for the state before the first, which is then zero, None is returned."""


def _in_full_precision(
    by_fla: Callable[..., Tensor],
) -> Callable[[Callable[..., Memory]], Callable[..., Memory]]:
    """by_fla: the same by flash-linear-attention, which is called where it can compute and no state
    is wanted, if by="fla" is given."""

    def decorate(recurrence: Callable[..., Memory]) -> Callable[..., Memory]:
        @functools.wraps(recurrence)
        def promoted(*tensors: Tensor | None, by: fla_kernels.Recurrence = "torch") -> Memory:
            *inputs, state = tensors
            given = [tensor for tensor in tensors if tensor is not None]
            if by == "fla" and state is None and fla_kernels.can_compute(given[2]):
                return by_fla(*inputs), None
            dtype = functools.reduce(torch.promote_types, (x.dtype for x in given), torch.float32)
            device = given[0].device.type
            with torch.autocast("cpu" if device == "meta" else device, enabled=False):
                return recurrence(*(None if x is None else x.to(dtype) for x in tensors))

        return promoted

    return decorate


@_in_full_precision(fla_kernels.decaying_memory)
def decaying_memory(
    q_BHTN: Tensor,
    k_BHTN: Tensor,
    v_BHTD: Tensor,
    log_decay_BHT: Tensor,
    state_BHND: Tensor | None,
) -> Memory:
    """S[t] = decay[t]·S[t-1] + k[t]ᵀ v[t], read by q[t]·S[t] (Dao & Gu 2024, arXiv 2405.21060,
    section 6). One head of queries and keys may serve all heads."""
    q, k, v = (_chunks(x, 64) for x in (q_BHTN, k_BHTN, v_BHTD))
    total = _chunks(log_decay_BHT[..., None], 64)[..., 0].cumsum(-1)  # (B, H, K, L)
    y = (q @ k.mT * _decay_between(total)) @ v
    states: list[Tensor] = []
    if _has_states(v, state_BHND):
        added = k.mT @ (v * (total[..., -1:] - total).exp()[..., None])  # (B, H, K, N, D)
        kept = total[..., -1].exp()[..., None, None]
        states = [_zeros(k, v) if state_BHND is None else state_BHND]
        for chunk in range(v.shape[2]):
            states.append(kept[:, :, chunk] * states[-1] + added[:, :, chunk])
        y = y + total.exp()[..., None] * (q @ torch.stack(states[:-1], 2))
    return _joined(y, v_BHTD), None if state_BHND is None else states[-1]


@_in_full_precision(fla_kernels.gated_delta_memory)
def gated_delta_memory(
    q_BHTN: Tensor,
    k_BHTN: Tensor,
    v_BHTD: Tensor,
    log_decay_BHT: Tensor,
    beta_BHT: Tensor,
    state_BHND: Tensor | None,
) -> Memory:
    """S[t] = decay[t]·(I - beta[t]·k[t]ᵀ k[t])·S[t-1] + beta[t]·k[t]ᵀ v[t], read by q[t]·S[t] (Yang
    et al. 2024, arXiv 2412.06464, equation 10; in chunks, section 3.3).

    What a key finds is replaced by its value, to the share beta. Keys should have length 1.
    """
    q, k, v = (_chunks(x, 64) for x in (q_BHTN, k_BHTN, v_BHTD))
    total, beta = (_chunks(x[..., None], 64)[..., 0] for x in (log_decay_BHT, beta_BHT))
    total = total.cumsum(-1)
    between = _decay_between(total)
    # u[t] = beta[t]·(v[t] - what k[t] finds): a triangular system within the chunk.
    weighted = beta[..., None] * k
    system, weights = weighted @ k.mT * between, q @ k.mT * between
    u = _solve(system, beta[..., None] * v)
    if not _has_states(v, state_BHND):
        return _joined(weights @ u, v_BHTD), None
    # What k[t] finds in the state before the chunk is linear in that state.
    found = _solve(system, total.exp()[..., None] * weighted)
    q = q * total.exp()[..., None]
    k = k * (total[..., -1:] - total).exp()[..., None]
    kept = total[..., -1].exp()[..., None, None]
    state = _zeros(k, v) if state_BHND is None else state_BHND
    read = []
    for chunk in range(v.shape[2]):
        new = u[:, :, chunk] - found[:, :, chunk] @ state
        read.append(q[:, :, chunk] @ state + weights[:, :, chunk] @ new)
        state = kept[:, :, chunk] * state + k[:, :, chunk].mT @ new
    return _joined(torch.stack(read, 2), v_BHTD), None if state_BHND is None else state


@_in_full_precision(fla_kernels.generalized_delta_memory)
def generalized_delta_memory(
    r_BHTN: Tensor,
    log_decay_BHTN: Tensor,
    k_BHTN: Tensor,
    v_BHTD: Tensor,
    removed_BHTN: Tensor,
    replaced_BHTN: Tensor,
    state_BHND: Tensor | None,
) -> Memory:
    """S[t] = (diag(decay[t]) - replaced[t]ᵀ removed[t])·S[t-1] + k[t]ᵀ v[t], read by r[t]·S[t]
    (Peng et al. 2025, RWKV-7, arXiv 2503.14456, section 4.1, transposed).

    log_decay: of each channel of the key, at least -1, so that the decay from one position to
    another can be taken apart into a factor of each.
    """
    r, log_decay, k, v, removed, replaced = (
        _chunks(x, 64)  # e⁶⁴ is within the range of fp32
        for x in (r_BHTN, log_decay_BHTN, k_BHTN, v_BHTD, removed_BHTN, replaced_BHTN)
    )
    total = log_decay.cumsum(-2)
    r, removed = r * total.exp(), removed * (total - log_decay).exp()
    grown = (-total).exp()
    k, replaced = k * grown, replaced * grown
    # u[t] = -removed[t]·S[t-1]: a triangular system within the chunk.
    system = removed @ replaced.mT
    u = -_solve(system, (removed @ k.mT).tril(-1) @ v)
    y = (r @ k.mT).tril() @ v
    weights = (r @ replaced.mT).tril()
    if not _has_states(v, state_BHND):
        return _joined(y + weights @ u, v_BHTD), None
    # What `removed` finds in the state before the chunk is linear in that state.
    found = _solve(system, removed)
    kept = total[..., -1, :].exp()[..., None]  # (B, H, K, N, 1)
    added = k.mT @ v
    state = _zeros(k, v) if state_BHND is None else state_BHND
    read = []
    for chunk in range(v.shape[2]):
        new = u[:, :, chunk] - found[:, :, chunk] @ state
        read.append(r[:, :, chunk] @ state + weights[:, :, chunk] @ new)
        state = kept[:, :, chunk] * (state + added[:, :, chunk] + replaced[:, :, chunk].mT @ new)
    return _joined(y + torch.stack(read, 2), v_BHTD), None if state_BHND is None else state


def _has_states(v: Tensor, state: Tensor | None) -> bool:
    """Whether anything is handed on: not in a text of a single chunk."""
    return state is not None or v.shape[2] > 1


def _zeros(k: Tensor, v: Tensor) -> Tensor:
    """The state before a text."""
    return v.new_zeros(*v.shape[:2], k.shape[-1], v.shape[-1])


def _joined(y: Tensor, v_BHTD: Tensor) -> Tensor:
    """(B, H, T, D) of chunks (B, H, K, L, D), without the zeros that filled up the last."""
    return y.flatten(2, 3)[:, :, : v_BHTD.shape[2]]


def _chunks(x_BHTC: Tensor, size: int) -> Tensor:
    """(B, H, K, L, C). Zeros fill up the last chunk: no decay, nothing added."""
    size = min(size, x_BHTC.shape[2])
    x_BHTC = F.pad(x_BHTC, (0, 0, 0, -x_BHTC.shape[2] % size))
    return x_BHTC.unflatten(2, (-1, size))


def _decay_between(total: Tensor) -> Tensor:
    """(…, L, L): the decay from the second position to the first, exp(total[i] - total[j]); 0 for
    j > i, where the difference could overflow."""
    later = torch.ones(total.shape[-1], total.shape[-1], dtype=torch.bool, device=total.device)
    difference = total[..., :, None] - total[..., None, :]
    return difference.masked_fill(later.triu(1), float("-inf")).exp()


def _solve(system: Tensor, sides: Tensor) -> Tensor:
    """x of (I + the part of `system` below the diagonal)·x = sides."""
    return torch.linalg.solve_triangular(system, sides, upper=False, unitriangular=True)
