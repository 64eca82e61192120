"""Device and precision of a run."""

from __future__ import annotations

import contextlib
import functools
import os
import sys
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from harness.common.errors import UsageError
from harness.common.text import visible_line
from harness.compute.matmul import Matmul, current_matmul, has_onednn, use_matmul
from harness.compute.memory import keep_freed_memory
from harness.compute.processor import VARIABLES, cpu_name, rounds_fp32
from harness.compute.race import SLOW, faster_matmul, faster_precision, times_fp32

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Compute:
    """A device and its autocast precision. Weights are always fp32."""

    device: torch.device
    precision: str
    tf32: bool = False
    matmul: Matmul = "blas"

    @classmethod
    def choose(
        cls,
        device: str,
        precision: str,
        tf32: bool = False,
        matmul: Matmul | Literal["auto"] | None = None,
    ) -> Compute:
        """Resolve `auto`. Raises UsageError for a device that this machine lacks.

        tf32: on an NVIDIA GPU, fp32 matrix products, convolutions and recurrent layers round their
        factors to 10 mantissa bits, which is faster. The setting holds for the whole process.
        torch's default is tf32 for convolutions and recurrent layers only.

        matmul: of fp32 on a CPU, see harness/compute/matmul.py; for the whole process, too. None
        leaves it as it is. Without oneDNN here, a run that had it goes on with the BLAS.
        """
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        kind = torch.device(device).type
        counts = {"cpu": 1, "cuda": torch.cuda.device_count()}
        counts["mps"] = int(torch.backends.mps.is_available())
        if (torch.device(device).index or 0) >= counts[kind]:
            present = ", ".join(
                name if count == 1 else f"{name}:0 to {name}:{count - 1}"
                for name, count in counts.items()
                if count
            )
            raise UsageError(f"device={device} is not on this machine; it has: {present}")
        if kind == "cpu":
            keep_freed_memory()
        if matmul is not None:
            wanted = faster_matmul() if matmul == "auto" else matmul
            use_matmul(wanted if kind == "cpu" and has_onednn() else "blas")
        if precision == "auto":
            precision = faster_precision(kind)
        else:
            say_if_slow(f"precision={precision}", precision, kind)
        if kind == "cuda":
            # torch's newer switches, one per library, raise an error in torch.compile.
            torch.set_float32_matmul_precision("high" if tf32 else "highest")
            torch.backends.cudnn.allow_tf32 = tf32
        return cls(torch.device(device), precision, tf32 and kind == "cuda", current_matmul())

    def autocast(self) -> contextlib.AbstractContextManager[object]:
        """Around a forward pass. What multiplies fp32 matrices is this device's from here on."""
        use_matmul(self.matmul)
        if self.precision == "fp32":
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, DTYPES[self.precision])

    def put(self, tensor: Tensor) -> Tensor:
        """A tensor of the CPU on this device, without waiting for what a GPU is at."""
        if self.device.type != "cuda":
            return tensor.to(self.device)
        return tensor.pin_memory().to(self.device, non_blocking=True)

    def seed(self, value: int) -> None:
        """Seed the generators of the CPU and this device. torch.manual_seed also seeds all other
        kinds of device and takes a hundred times as long."""
        torch.default_generator.manual_seed(value)
        if self.device.type == "cuda":
            with torch.cuda.device(self.device):  # else that of cuda:0, whichever this is
                torch.cuda.manual_seed(value)
        elif self.device.type == "mps":
            torch.mps.manual_seed(value)

    def synchronize(self) -> None:
        """Wait for the device, before a time measurement."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def describe(self) -> dict[str, object]:
        """The machine, for summary.json; of the environment, what is set and changes numbers."""
        name = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else cpu_name()
        return {
            "device": str(self.device),
            "name": name,
            "precision": self.precision,
            "tf32": self.tf32,
            "matmul": self.matmul,
            "threads": torch.get_num_threads(),
            **{name: os.environ[name] for name in VARIABLES if os.environ.get(name)},
        }


def say_if_slow(setting: str, precision: str, kind: str) -> None:
    """One line, once, about a setting that asks a CPU for a precision that it emulates."""
    if kind == "cpu" and precision != "fp32" and (times := times_fp32(precision, kind)) > SLOW:
        _say(f"{setting}: a product takes {times:.0f} times as long here as in fp32")


def make_deterministic(compiled: bool = False) -> None:
    """The same command gives the same bits, at a fixed number of threads; what makes fp32 another
    one is named. compiled: of a model that is to be compiled, too. Raises UsageError if torch can't
    make a folder that it needs.

    cuBLAS reads the variable before its first product. Filling uninitialized memory is not needed.
    """
    for name in rounds_fp32():
        _say(f"{name}={os.environ[name]}: fp32 may be rounded to fewer bits; it is recorded")
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    if compiled:  # loads torch's compiler, which takes a second and makes its cache
        try:
            torch.use_deterministic_algorithms(True, warn_only=True)
        except OSError as error:
            raise UsageError(
                f"torch can't make the folder of its compiler ({error}): set "
                "TORCHINDUCTOR_CACHE_DIR to one that can be written"
            ) from error
    torch.set_deterministic_debug_mode("warn")
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


@functools.cache  # once, however many jobs a sweep has
def _say(line: str) -> None:
    print(visible_line(line), file=sys.stderr)
