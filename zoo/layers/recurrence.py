"""torch's RNN and GRU with a faster training step on a CPU, and its LSTM with a faster token.

There torch takes the gradient of the recurrent weights in every time step, as many products of a
few rows, and adds them up. Here the steps pass on the state's gradient alone, and one product over
all of them makes that of the weights. Equations: Elman (1990) and Cho et al. (2014), as in
torch.nn.RNN and torch.nn.GRU; backpropagation through time: Werbos (1990).
B batch, T time, C inputs, H hidden units, G gates of H units side by side.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.amp import custom_bwd, custom_fwd
from torch.autograd.function import once_differentiable

FEW = 16


class RNNLayer(nn.RNN):
    """A layer of torch's, with its weights. Returns the outputs, as `batch_first` says, and the
    last state, (1, B, H)."""

    def __init__(self, input_size: int, hidden_size: int, *, batch_first: bool = False) -> None:
        super().__init__(input_size, hidden_size, batch_first=batch_first)

    def forward(self, x: Tensor, state_1BH: Tensor | None = None) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        if not _is_trained_here(x):
            found: tuple[Tensor, Tensor] = super().forward(x, state_1BH)
            return found
        W_HC, U_HH, b_H, c_H = self.all_weights[0]
        x_TBH = F.linear(_time_first(self, x), W_HC, b_H + c_H)
        h_BH = _first_state(self, x_TBH, state_1BH)
        h_TBH = TanhRecurrence.apply(x_TBH, h_BH, U_HH)
        return _time_first(self, h_TBH), h_TBH[-1:]


class GRULayer(nn.GRU):
    """As RNNLayer."""

    def __init__(self, input_size: int, hidden_size: int, *, batch_first: bool = False) -> None:
        super().__init__(input_size, hidden_size, batch_first=batch_first)

    def forward(self, x: Tensor, state_1BH: Tensor | None = None) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        if not _is_trained_here(x):
            found: tuple[Tensor, Tensor] = super().forward(x, state_1BH)
            return found
        W_GC, U_GH, b_G, c_G = self.all_weights[0]
        x_TBG = F.linear(_time_first(self, x), W_GC, b_G)
        h_BH = _first_state(self, x_TBG, state_1BH)
        h_TBH = GatedRecurrence.apply(x_TBG, h_BH, U_GH, c_G)
        return _time_first(self, h_TBH), h_TBH[-1:]


class LSTMLayer(nn.LSTM):
    """A layer of torch's. On a CPU oneDNN computes it, which takes a few times as long for a single
    step of a few rows as torch's cell."""

    def forward(  # type: ignore[override]
        self, x: Tensor, state: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        if state is None or not _is_token(_time_first(self, x)):
            found: tuple[Tensor, tuple[Tensor, Tensor]] = super().forward(x, state)
            return found
        h_1BH, c_1BH = state
        x_BC = _time_first(self, x)[0]
        h_BH, c_BH = torch.lstm_cell(x_BC, (h_1BH[0], c_1BH[0]), *self.all_weights[0])
        return _time_first(self, h_BH[None]), (h_BH[None], c_BH[None])


def _is_token(x_TBC: Tensor) -> bool:
    """Of a few rows on a CPU, not under autocast, with nothing to be trained."""
    time, rows, _ = x_TBC.shape
    half = torch.is_autocast_enabled("cpu")
    on_cpu = x_TBC.is_cpu and not torch.compiler.is_compiling()
    return time == 1 and rows <= FEW and on_cpu and not half and not torch.is_grad_enabled()


def _is_trained_here(x: Tensor) -> bool:
    """On a GPU cuDNN is faster; torch.compile is left torch's own."""
    return x.device.type == "cpu" and torch.is_grad_enabled() and not torch.compiler.is_compiling()


def _time_first(layer: nn.RNNBase, x: Tensor) -> Tensor:
    """Its own inverse."""
    return x.transpose(0, 1) if layer.batch_first else x


def _first_state(layer: nn.RNNBase, x_TBG: Tensor, state_1BH: Tensor | None) -> Tensor:
    return x_TBG.new_zeros(x_TBG.shape[1], layer.hidden_size) if state_1BH is None else state_1BH[0]


class TanhRecurrence(torch.autograd.Function):
    """h[t] = tanh(x[t] + U h[t-1]), (T, B, H), from x, (T, B, H), h[-1], (B, H), and U, (H, H)."""

    @staticmethod
    @custom_fwd(device_type="cpu")
    def forward(ctx: Any, x_TBH: Tensor, h_BH: Tensor, U_HH: Tensor) -> Tensor:
        h_TBH = torch.empty_like(x_TBH)
        before_BH = h_BH
        for x_BH, after_BH in zip(x_TBH, h_TBH, strict=True):
            torch.add(x_BH, torch.mm(before_BH, U_HH.t()), out=after_BH).tanh_()
            before_BH = after_BH
        ctx.save_for_backward(h_TBH, h_BH, U_HH)
        return h_TBH

    @staticmethod
    @custom_bwd(device_type="cpu")
    @once_differentiable
    def backward(ctx: Any, dh_TBH: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        h_TBH, h_BH, U_HH = ctx.saved_tensors
        slope_TBH = 1 - h_TBH.square()
        dx_TBH, later_BH = torch.empty_like(h_TBH), torch.zeros_like(h_BH)  # of later steps
        for dh_BH, slope_BH, dx_BH in _backwards(dh_TBH, slope_TBH, dx_TBH):
            torch.mul(later_BH.add_(dh_BH), slope_BH, out=dx_BH)
            later_BH = torch.mm(dx_BH, U_HH)
        return dx_TBH, later_BH, _weights_gradient(dx_TBH, h_TBH, h_BH)


class GatedRecurrence(torch.autograd.Function):
    """With u = U h[t-1] + c: r = σ(x_r + u_r), z = σ(x_z + u_z), n = tanh(x_n + r·u_n), and
    h[t] = n + z·(h[t-1] - n), (T, B, H); from x and c, whose parts are r, z and n, (T, B, G) and
    (G,), h[-1], (B, H), and U, (G, H)."""

    @staticmethod
    @custom_fwd(device_type="cpu")
    def forward(ctx: Any, x_TBG: Tensor, h_BH: Tensor, U_GH: Tensor, c_G: Tensor) -> Tensor:
        T, B, H = (*x_TBG.shape[:2], h_BH.shape[1])
        h_TBH, n_TBH, u_TBH = (x_TBG.new_empty(T, B, H) for _ in range(3))
        gates_TBG = x_TBG.new_empty(T, B, 2 * H)
        r_TBH, z_TBH = gates_TBG.chunk(2, dim=-1)
        x_gates_TBG, x_n_TBH = x_TBG.split([2 * H, H], dim=-1)
        before_BH = h_BH
        for x_gates, x_n, gates, r, z, n, u_n, after in zip(
            x_gates_TBG, x_n_TBH, gates_TBG, r_TBH, z_TBH, n_TBH, u_TBH, h_TBH, strict=True
        ):
            u_gates, u = F.linear(before_BH, U_GH, c_G).split([2 * H, H], dim=-1)
            torch.add(x_gates, u_gates, out=gates).sigmoid_()
            torch.addcmul(x_n, r, u_n.copy_(u), out=n).tanh_()
            before_BH = torch.lerp(n, before_BH, z, out=after)
        ctx.save_for_backward(h_TBH, h_BH, U_GH, r_TBH, z_TBH, n_TBH, u_TBH)
        return h_TBH

    @staticmethod
    @custom_bwd(device_type="cpu")
    @once_differentiable
    def backward(ctx: Any, dh_TBH: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        h_TBH, h_BH, U_GH, r_TBH, z_TBH, n_TBH, u_TBH = ctx.saved_tensors
        T, B, H = h_TBH.shape
        # What a step's gradient is multiplied by, before the steps: they have few operations then.
        to_n_TBH = (1 - z_TBH) * (1 - n_TBH.square())
        to_z_TBH = (_before(h_TBH, h_BH) - n_TBH) * z_TBH * (1 - z_TBH)
        to_r_TBH = to_n_TBH * u_TBH * r_TBH * (1 - r_TBH)
        to_u_TB3H = torch.stack([to_r_TBH, to_z_TBH, to_n_TBH * r_TBH], dim=2)
        du_TB3H, total_TBH = torch.empty_like(to_u_TB3H), torch.empty_like(h_TBH)
        later_BH = torch.zeros_like(h_BH)
        for dh_BH, z_BH, to_u_B3H, du_B3H, total_BH in _backwards(
            dh_TBH, z_TBH, to_u_TB3H, du_TB3H, total_TBH
        ):
            torch.add(dh_BH, later_BH, out=total_BH)
            torch.mul(total_BH[:, None], to_u_B3H, out=du_B3H)
            later_BH = torch.mm(du_B3H.view(B, 3 * H), U_GH).addcmul_(total_BH, z_BH)
        du_TBG = du_TB3H.view(T, B, 3 * H)
        dx_TBG = torch.cat([du_TBG[..., : 2 * H], total_TBH * to_n_TBH], dim=-1)
        dU_GH = _weights_gradient(du_TBG, h_TBH, h_BH)
        return dx_TBG, later_BH, dU_GH, du_TBG.sum((0, 1))


def _backwards(*each: Tensor) -> Any:
    """Their parts, step by step, the last first."""
    return zip(*(reversed(x.unbind()) for x in each), strict=True)


def _before(h_TBH: Tensor, h_BH: Tensor) -> Tensor:
    """The state before each step."""
    return torch.cat([h_BH[None], h_TBH[:-1]])


def _weights_gradient(du_TBG: Tensor, h_TBH: Tensor, h_BH: Tensor) -> Tensor:
    """(G, H)."""
    return du_TBG.flatten(0, 1).t() @ _before(h_TBH, h_BH).flatten(0, 1)
