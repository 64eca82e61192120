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
    """Raises UsageError if the model is to be compiled and nothing can be."""
    if settings.compile:
        try_compiler("compile=true", compute.device, "set compile=false")


def try_compiler(asked: str, device: torch.device, instead: str) -> None:
    """Compile a little function, which takes a second or two. Raises UsageError with what was asked
    for, and what to do instead of installing a compiler."""
    try:
        _compile(device)
    except Exception as error:  # whatever its parts raise
        raise UsageError(
            f"{asked}: torch.compile does not work here ({one_line(error)}); install a C++ "
            f"compiler (g++ or clang), or {instead}"
        ) from error


def one_line(error: Exception) -> str:
    """Its kind and its first line."""
    return " ".join(f"{type(error).__name__}: {error}".partition("\n")[0].split())


@functools.cache  # once for the jobs of a sweep; a failure is not kept
def _compile(device: torch.device) -> None:
    size = 2 + secrets.randbelow(MOST)  # what other processes compiled is kept, for each size
    torch.compile(lambda x: x + 1)(torch.ones(size, device=device))
