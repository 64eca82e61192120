"""Lion, as pytorch-optimizer has it, with the settings that make sense here."""

from __future__ import annotations

from typing import Any

import pytorch_optimizer


class Lion(pytorch_optimizer.Lion):
    """Steps by the sign of an interpolated momentum, and decoupled weight decay (Chen et al. 2023,
    arXiv 2302.06675, algorithm 2)."""

    def __init__(
        self,
        params: list[dict[str, Any]],
        lr: float,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, lr=lr, betas=betas, weight_decay=weight_decay)
