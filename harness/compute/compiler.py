"""Whether torch.compile works on this machine. It is tried out: it needs a C++ compiler, which one
depends on the device and the system."""

from __future__ import annotations

import functools
import secrets

import torch

from harness.common.errors import UsageError
from harness.compute.device import Compute
from harness.config.settings import Settings

MOST = 1 << 16


def require_compiler(settings: Settings, compute: Compute) -> None:
    """Raises UsageError if the model is to be compiled and nothing can be. A little function
    is, which takes a second or two."""
    if not settings.compile:
        return
    try:
        _compile(compute.device)
    except Exception as error:  # whatever its parts raise
        reason = " ".join(f"{type(error).__name__}: {error}".partition("\n")[0].split())
        raise UsageError(
            f"compile=true: torch.compile does not work here ({reason}); install a C++ compiler "
            "(g++ or clang), or set compile=false"
        ) from error


@functools.cache  # once for the jobs of a sweep; a failure is not kept
def _compile(device: torch.device) -> None:
    size = 2 + secrets.randbelow(MOST)  # what other processes compiled is kept, for each size
    torch.compile(lambda x: x + 1)(torch.ones(size, device=device))
