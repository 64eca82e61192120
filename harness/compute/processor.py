"""This machine's processor, and the variables that change what its libraries compute with."""

from __future__ import annotations

import contextlib
import os
import platform
from pathlib import Path

# Variables of torch and of the libraries below it that change numbers: what fp32 means, and the
# order of sums. Values in which the first of them say nothing new.
OF_FP32 = {
    "ONEDNN_DEFAULT_FPMATH_MODE": "STRICT",
    "DNNL_DEFAULT_FPMATH_MODE": "STRICT",
    "NVIDIA_TF32_OVERRIDE": "0",
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE": "0",
}
OF_LAST_BITS = (
    *("ATEN_CPU_CAPABILITY", "MKL_CBWR", "MKL_ENABLE_INSTRUCTIONS"),
    *("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "TORCH_LINEAR_FLATTEN_3D"),
    *("TORCH_BLAS_PREFER_CUBLASLT", "TORCH_LINALG_PREFER_CUSOLVER"),
    *("TORCH_CUDNN_USE_HEURISTIC_MODE_B", "TORCH_CUDNN_V8_API_DISABLED"),
)
VARIABLES = (*OF_FP32, *OF_LAST_BITS)
MOST = 8  # processes at the same time: one that trains or scores a GPT of 0.8 M takes 1.3 GB


def rounds_fp32() -> list[str]:
    """The variables that are set so that fp32 products may be of fewer bits."""
    given = {name: os.environ.get(name, "").upper() for name in OF_FP32}
    return [name for name, usual in OF_FP32.items() if given[name] not in ("", usual)]


def cpu_name() -> str:
    """As the system calls it."""
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def cpu_instructions() -> str:
    """The sets of instructions that it has, where Linux lists them: a virtual machine's name may
    be that of several processors."""
    return _cpuinfo("flags") or _cpuinfo("Features")


def _cpuinfo(field: str) -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith(field):
                return line.partition(":")[2].strip()
    return ""
