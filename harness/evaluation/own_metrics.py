"""The user's own figures: functions that `metrics` names, computed beside the score.

N positions in one chunk, V vocabulary, M figures.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from harness.common.errors import UsageError
from harness.config.build import resolve_function
from harness.evaluation.nats import Measure, nats_N

LOG = logging.getLogger("harness")
TAKEN = {
    *("nats_per_token", "bits_per_byte", "perplexity", "tokens", "bytes", "stride", "unknown"),
    *("model", "data", "test", "val"),  # columns of the table of a comparison
}


class OwnMetrics:
    """Functions by name: from the logits (N, V) and the targets (N,) to a value of each position,
    (N,). A figure is the mean over all targets of a split. A function that fails is not called
    again, and its figure is None; the score does not depend on any."""

    def __init__(self, functions: Mapping[str, Measure]) -> None:
        self._functions = functions
        self._failed: set[str] = set()

    @classmethod
    def of(cls, targets: Iterable[str], trust: Iterable[str]) -> OwnMetrics:
        """Raises UsageError for what is no function of a trusted package, and for a second figure
        of a name."""
        functions: dict[str, Measure] = {}
        for target in targets:
            name = target.rpartition(".")[2]
            if name in functions or name in TAKEN:
                raise UsageError(f"metrics: {target}: there is a figure {name} already")
            functions[name] = resolve_function(target, "metrics", trust)
        return cls(functions)

    def __len__(self) -> int:
        return len(self._functions)

    def measure(self, logits_NV: Tensor, targets_N: Tensor) -> Tensor:
        """Nats and the values of each function, (N, 1 + M)."""
        nats = nats_N(logits_NV, targets_N)
        values = [
            # Copies, so that it can spoil nothing.
            self._values(name, function, logits_NV.clone(), targets_N.clone(), nats)
            for name, function in self._functions.items()
        ]
        return torch.stack([nats, *values], dim=-1)

    def figures(self, values: NDArray[np.floating]) -> dict[str, float | None]:
        """The means of the values, (N, M)."""
        means = values.mean(axis=0, dtype=np.float64)
        return {
            name: float(mean) if math.isfinite(mean) and name not in self._failed else None
            for name, mean in zip(self._functions, means, strict=True)
        }

    def _values(
        self, name: str, function: Measure, logits_NV: Tensor, targets_N: Tensor, nats_N: Tensor
    ) -> Tensor:
        if name not in self._failed:
            try:
                found = function(logits_NV, targets_N)
                if found.shape != nats_N.shape:
                    raise ValueError(f"{tuple(found.shape)} values for {len(nats_N)} targets")
                return found.to(nats_N)
            except Exception as error:  # of the user's code
                self._failed.add(name)
                words = " ".join(f"{type(error).__name__}: {error}".split())
                LOG.warning(f"metrics: {name} is left out from here on: {words}")
        return torch.full_like(nats_N, math.nan)


NONE = OwnMetrics({})
