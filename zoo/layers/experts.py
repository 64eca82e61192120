"""A mixture of experts in place of a feed-forward network: each token goes through a few of many.

Shazeer et al. 2017 (arXiv 1701.06538, section 2); token choice as in Fedus et al. 2021 (Switch
Transformer, arXiv 2101.03961, section 2) for one expert, and as in Jiang et al. 2024 (Mixtral,
arXiv 2401.04088, section 2.1) for several. No token is dropped, so none depends on the others'.

B batch, T time, C channels, E experts, K experts of a token, N tokens, M = N·K tokens sent.
"""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.initialization import STD
from zoo.layers.checks import require_positive
from zoo.layers.feed_forward import Activation, FeedForward
from zoo.roles import BIAS, OUT_IN, Role

# oneDNN compiles each product for its number of rows, which takes longer than the product. Rounded
# up to a multiple there are few such numbers, and each is compiled once.
ROWS = 32


class MixtureOfExperts(nn.Module):
    """n_expert feed-forward networks, of which a router chooses n_expert_active for each token.

    Their outputs are added, weighted by the router's probabilities: those of the chosen, made to
    add up to 1, or of a single one its probability as it is, so that the router has a gradient.
    """

    def __init__(
        self,
        n_embd: int,
        bias: bool,
        activation: Activation,
        n_inner: int | None,
        n_expert: int,
        n_expert_active: int,
    ) -> None:
        require_positive(n_expert=n_expert, n_expert_active=n_expert_active)
        if n_expert_active > n_expert:
            raise ValueError(f"n_expert_active={n_expert_active} exceeds n_expert={n_expert}")
        super().__init__()
        one = FeedForward(n_embd, bias, activation, n_inner)
        self.n_expert_active = n_expert_active
        self.activation = one.activation
        self.router = nn.Linear(n_embd, n_expert, bias=False)
        self.expand = ExpertLinear(n_expert, one.expand)
        self.projection = ExpertLinear(n_expert, one.projection)

    @property
    def idle_parameters(self) -> int:
        """Of the experts that a token does not go through."""
        experts = (self.expand, self.projection)
        total = sum(p.numel() for expert in experts for p in expert.parameters())
        n_expert = self.router.out_features
        return total // n_expert * (n_expert - self.n_expert_active)

    def forward(self, x_BTC: Tensor, losses: dict[str, Tensor] | None = None) -> Tensor:
        x_NC = x_BTC.flatten(0, -2)
        device = "cpu" if x_NC.is_meta else x_NC.device.type  # there is no autocast on meta
        with torch.autocast(device, enabled=False):  # as in Switch, section 2.4
            logits_NE = self.router(x_NC.to(self.router.weight.dtype))
        gates_NK, chosen_NK = choose(logits_NE, self.n_expert_active)
        if losses is not None:
            add_losses(losses, logits_NE, chosen_NK)
        order_M = chosen_NK.flatten().argsort(stable=True)
        sent_MC = x_NC[order_M // self.n_expert_active]
        y_MC = self._through_experts(sent_MC, self._loads(chosen_NK))
        y_NKC = y_MC[order_M.argsort()].unflatten(0, chosen_NK.shape)
        return (gates_NK.to(y_NKC.dtype)[:, :, None] * y_NKC).sum(1).view_as(x_BTC)

    def _loads(self, chosen_NK: Tensor) -> list[int]:
        """How many tokens each expert gets. On meta, where no token has chosen, as even as can be:
        all cost the same."""
        n_expert = self.router.out_features
        if chosen_NK.is_meta:
            return [(chosen_NK.numel() + expert) // n_expert for expert in range(n_expert)]
        loads: list[int] = chosen_NK.flatten().bincount(minlength=n_expert).tolist()
        return loads

    def _through_experts(self, sent_MC: Tensor, loads: list[int]) -> Tensor:
        """The first loads[0] tokens through the first expert, and so on."""
        experts = zip(self.expand.unbind(), self.projection.unbind(), strict=True)
        # Not where a text is scored or sampled in fp32, a few tokens at a time.
        is_rounded = sent_MC.is_cpu and (self.training or torch.is_autocast_enabled("cpu"))
        at_once = ROWS if is_rounded else 1
        outputs = []
        for part, (expand, projection) in zip(sent_MC.split(loads), experts, strict=True):
            rows = F.pad(part, (0, 0, 0, -len(part) % at_once))
            rows = F.linear(self.activation(F.linear(rows, *expand)), *projection)
            outputs.append(rows[: len(part)])
        return torch.cat(outputs)


def choose(logits_NE: Tensor, n_expert_active: int) -> tuple[Tensor, Tensor]:
    """Each token's weights for the experts that it chooses, and their numbers, (N, K) each."""
    gates_NK, chosen_NK = logits_NE.softmax(-1).topk(n_expert_active)
    if n_expert_active > 1:
        gates_NK = gates_NK / gates_NK.sum(-1, keepdim=True)
    return gates_NK, chosen_NK


class ExpertLinear(nn.Module):
    """The linear map `like` once for each expert: weight (E, out, in), bias (E, out) or None."""

    parameter_roles: ClassVar[dict[str, Role]] = {"weight": OUT_IN, "bias": BIAS}

    def __init__(self, n_expert: int, like: nn.Linear) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(n_expert, *like.weight.shape))
        self.bias = None
        if like.bias is not None:
            self.bias = nn.Parameter(torch.zeros(n_expert, *like.bias.shape))
        nn.init.normal_(self.weight, std=STD)

    def unbind(self) -> list[tuple[Tensor, Tensor | None]]:
        """Each expert's weight and bias."""
        biases = (None,) * len(self.weight) if self.bias is None else self.bias.unbind()
        return list(zip(self.weight.unbind(), biases, strict=True))


def add_losses(losses: dict[str, Tensor], logits_NE: Tensor, chosen_NK: Tensor) -> None:
    """Add a layer's auxiliary losses.

    balance: E·Σ share of the tokens sent · mean probability; 1 if all experts get the same
        (Switch, equations 4 to 6, with the share of all that is sent where a token has several).
    router_z: the mean squared log-sum-exp of the router's logits (Zoph et al. 2022, ST-MoE, arXiv
        2202.08906, equation 5).
    """
    n_expert = logits_NE.shape[-1]
    share_E = F.one_hot(chosen_NK, n_expert).to(logits_NE.dtype).mean((0, 1))
    balance = n_expert * (share_E * logits_NE.softmax(-1).mean(0)).sum()
    router_z = logits_NE.logsumexp(-1).square().mean()
    for name, loss in (("balance", balance), ("router_z", router_z)):
        losses[name] = losses[name] + loss if name in losses else loss
