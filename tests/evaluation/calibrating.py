"""Models of known logits, what is seen of their tokens, and the page of it, parsed."""

from __future__ import annotations

from html.parser import HTMLParser

import numpy as np
import torch
from torch import Tensor

from harness.evaluation.calibration import Floats, Pass, TokenStatistics
from harness.evaluation.nats import Measure


def fixed(logits_NV: Tensor, targets_N: Tensor) -> Pass:
    """A model that always gives these logits, on a text that has these targets."""

    def one_pass(measure: Measure) -> Floats:
        return measure(logits_NV, targets_N).numpy()

    return one_pass


def calibrated() -> tuple[Tensor, Tensor]:
    """Logits under which each target comes exactly as often as they say: three contexts, whose
    probabilities are sixteenths and eighths."""
    sixteenths = torch.tensor([[8, 4, 2, 2], [1, 1, 13, 1], [4, 4, 4, 4]]).double()
    rows, targets = [], []
    for row in sixteenths:
        for id_, count in enumerate(row.int().tolist()):
            rows += [row.log()] * count
            targets += [id_] * count
    return torch.stack(rows), torch.tensor(targets)


def observed(nats: list[float], targets: list[int], vocab_size: int = 256) -> TokenStatistics:
    """The likeliest three are always 0, 1 and 2."""
    n = len(nats)
    return TokenStatistics(
        targets=np.array(targets),
        nats=np.repeat(np.array(nats, dtype=np.float64)[:, None], 2, axis=1),
        confidence=np.full((n, 2), 0.5),
        guesses=np.tile(np.arange(3), (n, 1)),
        probabilities=np.full((n, 3), 0.25),
        unused=np.full(n, 0.125),
    )


class Page(HTMLParser):
    """Its text, and what stands in its tags."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(content)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def marks(self) -> list[dict[str, str | None]]:
        return [attributes for _, attributes in self.tags if attributes.get("class") == "m"]
