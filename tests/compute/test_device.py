"""Which device a training gets."""

from __future__ import annotations

import pytest
import torch

from harness.common.errors import UsageError
from harness.compute.device import Compute


def test_a_device_that_is_not_there_is_refused_by_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(UsageError, match="cuda:9 is not on this machine; it has: cpu, cuda:0 to"):
        Compute.choose("cuda:9", "fp32")
