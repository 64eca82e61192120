"""transformers' architectures in bf16 on a CPU: not by the kernel that is slow there."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tests.zoo_models import VOCAB, random_ids, randomize
from zoo.hugging_face import HuggingFace

TYPES: dict[str, dict[str, Any]] = {
    "gpt2": {"n_head": 4},
    "gemma3_text": {
        "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 48,
        "head_dim": 8, "sliding_window": 5,
    },
}  # fmt: skip


class Calls(TorchDispatchMode):
    """The names of the operators that are called."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.add(func.__name__)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("model_type", TYPES)
def test_attention_in_bf16_is_computed_by_its_parts(model_type: str) -> None:
    sizes = {"hidden_size": 32, "num_hidden_layers": 2}
    config = {"model_type": model_type} | sizes | TYPES[model_type]
    model = randomize(HuggingFace(VOCAB, 24, config))
    ids_BT = random_ids(2, 24)
    with Calls() as exact:
        expected_BTV = model(ids_BT)
    with Calls() as calls, torch.autocast("cpu", torch.bfloat16):
        found_BTV = model(ids_BT)
    assert any("flash_attention_for_cpu" in name for name in exact.names)
    assert not any("flash_attention_for_cpu" in name for name in calls.names)
    error = (found_BTV.float() - expected_BTV).norm() / expected_BTV.norm()
    assert error < 0.05
