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
        raise no_compiler("compile=true", error, "set compile=false") from error


def no_compiler(asked: str, error: Exception, instead: str) -> UsageError:
    """What to raise where nothing can be compiled."""
    reason = " ".join(f"{type(error).__name__}: {error}".partition("\n")[0].split())
    return UsageError(
        f"{asked}: torch.compile does not work here ({reason}); install a C++ compiler "
        f"(g++ or clang), or {instead}"
    )


@functools.cache  # once for the jobs of a sweep; a failure is not kept
def _compile(device: torch.device) -> None:
    size = 2 + secrets.randbelow(MOST)  # what other processes compiled is kept, for each size
    torch.compile(lambda x: x + 1)(torch.ones(size, device=device))
