"""Total and peak memory, and what becomes of freed memory."""

from __future__ import annotations

import ctypes
import os
import resource
import sys
from contextlib import suppress
from pathlib import Path

import torch

from harness.common import contained

# mallopt's parameters, of glibc's malloc.h.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
# Tensors of so many bytes go back all the same. Older glibc takes no more than the second.
LARGEST_KEPT = 1 << 30, 32 << 20


def keep_freed_memory() -> None:
    """From now on what the main thread frees stays with the process, but for pieces of a GiB and
    more, unless the environment says how malloc is to go about it.

    glibc gives large tensors' memory back to the system, which clears each page and maps it anew at
    the next step. Which it gives back depends on what was freed before, so that processes that do
    the same are not equally fast. Other C libraries have no such setting; there nothing is done.
    """
    tunables = os.environ.get("GLIBC_TUNABLES", "")
    if "glibc.malloc." in tunables or any(name.startswith("MALLOC_") for name in os.environ):
        return
    if any(_glibc("mallopt", M_MMAP_THRESHOLD, size) for size in LARGEST_KEPT):
        _glibc("mallopt", M_TRIM_THRESHOLD, -1)  # never; alone it would make things worse


def _glibc(name: str, *numbers: int) -> int:
    """Call a function of the C library; 0, which is a refusal, where it has none."""
    function = getattr(ctypes.CDLL(None), name, None)
    return 0 if function is None else int(function(*numbers))


class PeakMemory:
    """Peak memory in bytes since this object was created: of the GPU, or else of the process."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        else:
            _reset_process_peak()

    def read(self) -> int:
        if self._device.type == "cuda":
            return torch.cuda.max_memory_allocated(self._device)
        return _process_peak()


def _reset_process_peak() -> None:
    """Kept memory goes back first, so that it is not in the new peak."""
    _glibc("malloc_trim", 0)
    with suppress(OSError):  # Linux alone
        Path("/proc/self/clear_refs").write_text("5")


def _process_peak() -> int:
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # macOS counts bytes


_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def total_memory(device: torch.device) -> int:
    """The device's memory in bytes; for the CPU at most the limit of this process's cgroup."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[1])
    limits = [contained.MEMORY]
    for path in map(Path, _LIMITS):
        if path.exists() and (text := path.read_text().strip()).isdigit():
            limits.append(int(text))
    return min(limits)
