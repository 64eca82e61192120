"""Total and peak memory."""

from __future__ import annotations

import resource
import sys
from contextlib import suppress
from pathlib import Path

import torch

from harness.common import contained


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
    """So that a job in a sweep does not inherit the peak of the previous job (Linux only)."""
    with suppress(OSError):
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
