"""A model that is fed one token at a time: it can't have seen what comes later.

R rows, T time, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from harness.compute.device import Compute
from harness.evaluation.score import scoring
from zoo.language_model import Cache, LanguageModel

Ids = NDArray[np.integer]
Logits = NDArray[np.float32]


class Decoder(Protocol):
    """In this process (LocalDecoder), or in one of its own (`harness.referee.process`)."""

    def describe(self) -> tuple[int | None, int, int]:
        """block_size, vocab_size, and the bytes of a row's cache."""

    def start(self, rows: int) -> None:
        """Begin `rows` texts."""

    def feed(self, ids_R: Ids, wanted: Ids) -> Logits:
        """The next token of each row; the logits after it of the `wanted` rows, (wanted, V)."""

    def carry(self, ids_T: Ids) -> None:
        """Tokens that a single row has passed, in one call, as the score carries its cache."""

    def keep(self) -> None:
        """Remember the single row's cache, to go on from it."""

    def resume(self, kept: list[int]) -> bool:
        """Go on from these caches side by side; False if they can't be stacked."""


class LocalDecoder:
    """By the score's own calls, in its precision. on_call: called before each of them."""

    def __init__(
        self,
        model: LanguageModel,
        compute: Compute,
        on_call: Callable[[], object] = lambda: None,
    ) -> None:
        self._model, self._compute, self._on_call = model, compute, on_call
        self._kept: list[Cache] = []
        self.start(1)

    def describe(self) -> tuple[int | None, int, int]:
        model = self._model
        return model.block_size, model.vocab_size, model.init_cache(1).nbytes

    def start(self, rows: int) -> None:
        self._kept = []
        with scoring(self._model, self._compute):
            self._cache = self._model.init_cache(rows)

    def feed(self, ids_R: Ids, wanted: Ids) -> Logits:
        self._on_call()
        ids_R1 = torch.from_numpy(ids_R.astype(np.int64))[:, None].to(self._compute.device)
        with scoring(self._model, self._compute):
            features_R1C = self._model(ids_R1, self._cache, return_features=True)
            if not len(wanted):
                return np.empty((0, self._model.vocab_size), np.float32)
            rows = torch.from_numpy(wanted).to(self._compute.device)
            logits_RV = self._model.head(features_R1C[rows].flatten(0, 1))
        found: Logits = logits_RV.float().cpu().numpy()
        return found

    def carry(self, ids_T: Ids) -> None:
        self._on_call()
        ids_1T = torch.from_numpy(ids_T.astype(np.int64))[None].to(self._compute.device)
        with scoring(self._model, self._compute):
            self._model(ids_1T, self._cache, return_features=True)

    def keep(self) -> None:
        with torch.inference_mode():
            self._kept.append(self._cache.select([0]))

    def resume(self, kept: list[int]) -> bool:
        caches = [self._kept[number] for number in kept]
        with torch.inference_mode():
            # Only a cache can make another of its kind.
            stacked = caches[0].select([0] * len(caches))
            for name, tensor in stacked.tensors.items():
                parts = [cache.tensors.get(name) for cache in caches]
                if any(part is None or part.shape[1:] != tensor.shape[1:] for part in parts):
                    return False
                tensor.copy_(torch.cat([part for part in parts if part is not None]))
        self._cache = stacked
        return True
