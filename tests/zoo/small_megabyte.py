"""A MEGABYTE of a few units."""

from __future__ import annotations

from typing import Any

from tests.zoo_models import randomize
from zoo.megabyte import MEGABYTE

SIZES = {
    "vocab_size": 7, "block_size": 12, "n_layer_global": 2, "n_head_global": 2, "n_layer_local": 2,
    "n_head_local": 2, "n_embd_local": 8,
}  # fmt: skip


def build(patch_size: int, **options: Any) -> MEGABYTE:
    """Small, with random weights, in float64 and evaluation mode."""
    model = MEGABYTE(**SIZES, patch_size=patch_size, n_embd_global=4 * patch_size, **options)
    randomize(model.double().eval())
    return model
