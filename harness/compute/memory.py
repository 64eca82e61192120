"""Total and peak memory, and what the process keeps."""

from __future__ import annotations

import ctypes
import resource
import sys
from contextlib import suppress
from pathlib import Path

import torch

from harness.common import contained

# mallopt's parameters in glibc's malloc.h, and from which size on a piece is given back once freed.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
GIVEN_BACK = 1 << 30


def keep_freed_memory() -> None:
    """From now on what the process frees stays with it, but for pieces of a GiB and more.

    glibc gives large tensors' memory back to the system, which clears each page and maps it anew at
    the next step: a tenth of a step, and of large ones a third. Which it gives back depends on what
    was freed before, so that processes that do the same are not equally fast. Other C libraries
    have no such setting; there nothing is done.
    """
    _glibc("mallopt", M_MMAP_THRESHOLD, GIVEN_BACK)
    _glibc("mallopt", M_TRIM_THRESHOLD, -1)  # never


def _glibc(name: str, *numbers: int) -> None:
    """Call a function of the C library, where it has it."""
    function = getattr(ctypes.CDLL(None), name, None)
    if function is not None:
        function(*numbers)


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
    """So that it is not that of what was done before; what was kept of that is given back."""
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
