"""In which precision, and on a CPU by which library, matrices are multiplied fastest here.

It is measured, once on a machine: what a device can't do is emulated, a hundred times slower, and
which kernels there are depends on the processor, the library and their settings.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from harness.common import contained
from harness.common.errors import RunFailure, UsageError
from harness.common.files import create_private
from harness.common.paths import user_cache
from harness.compute.matmul import Matmul, by_blas, by_onednn, current_matmul, has_onednn
from harness.compute.processor import VARIABLES, cpu_instructions, cpu_name

FOLDER = "language-model-zoo/races"
TRIALS = 50
# What takes so many times the fastest one's seconds after so many trials has lost: it is emulated.
HOPELESS, EARLY = 10, 3
SLOW = 2.0  # times fp32's seconds: from there on a precision is a mistake on this machine


def faster_matmul() -> Matmul:
    """oneDNN where it takes at most three quarters of the BLAS's time."""
    seconds = race("cpu")
    return "onednn" if seconds.get("onednn", math.inf) * 4 <= seconds["blas"] * 3 else "blas"


def faster_precision(kind: str) -> Literal["bf16", "fp32"]:
    """bf16 where a kind of device multiplies matrices in at most four fifths of fp32's time (on a
    CPU by what multiplies them now), else fp32."""
    if kind == "mps":
        return "fp32"  # not every product exists in bf16
    return "bf16" if times_fp32("bf16", kind) <= 0.8 else "fp32"


def times_fp32(precision: str, kind: str) -> float:
    """How many times fp32's seconds a product takes in bf16 or fp16."""
    seconds = race(kind)
    return seconds[precision] / seconds[current_matmul() if kind == "cpu" else "blas"]


def race(kind: str) -> dict[str, float]:
    """Seconds of a product of two square matrices on a kind of device, "cpu" or "cuda": in fp32 by
    the device's BLAS, on a CPU by onednn, if there is one, and in bf16 and fp16.

    They are kept in a file of the user's cache, for this processor, torch and number of threads;
    without it they are measured, in a tenth to a third of a second. Of processes that start
    together all take those of the first. A file that can't be read or written costs each process
    the race, and nothing else.
    """
    return _race(kind, torch.get_num_threads())


@functools.cache
def _race(kind: str, threads: int) -> dict[str, float]:
    conditions = {
        "kind": kind,
        "processor": cpu_name() if kind == "cpu" else torch.cuda.get_device_name(),
        "instructions": cpu_instructions(),
        "threads": threads,
        "torch": torch.__version__,
        **{name: os.environ[name] for name in VARIABLES if os.environ.get(name)},
    }
    products = _products(kind)
    found = _kept(conditions, products)
    if found is None:
        _forget(conditions)
        rounding = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("highest")  # whatever an earlier job has set
        measured = _measured(products)
        torch.set_float32_matmul_precision(rounding)
        _keep(conditions, measured)
        found = _kept(conditions, products) or measured
    return found


def _products(kind: str) -> dict[str, Callable[[], Tensor]]:
    size = {"cpu": 256, "cuda": 4096}[kind]
    fp32 = torch.ones(size, size, device=kind)
    bf16, fp16 = fp32.bfloat16(), fp32.half()
    raced: dict[str, Callable[[], Tensor]] = {
        "bf16": lambda: bf16 @ bf16,
        "fp16": lambda: fp16 @ fp16,
        "blas": lambda: by_blas(fp32, fp32),
    }
    if kind == "cpu" and has_onednn():
        raced["onednn"] = lambda: by_onednn(fp32, fp32, None)
    return raced


def _measured(products: Mapping[str, Callable[[], Tensor]]) -> dict[str, float]:
    seconds = dict.fromkeys(products, math.inf)
    for trial in range(TRIALS):  # in turn, and the best of each: the machine may be busy
        for name, product in products.items():
            if trial < EARLY or seconds[name] < HOPELESS * min(seconds.values()):
                seconds[name] = min(seconds[name], _seconds(product))
    return seconds


def _seconds(product: Callable[[], Tensor]) -> float:
    begun = time.perf_counter()
    product()[0, 0].item()  # waits for the device
    return time.perf_counter() - begun


def _kept(conditions: dict[str, Any], products: Mapping[str, object]) -> dict[str, float] | None:
    """The seconds in the user's cache; None if there are none that make sense."""
    with suppress(OSError, UsageError, ValueError, RecursionError, KeyError, TypeError):
        entry = json.loads(contained.read_text(_file(conditions)))
        seconds = {name: entry["seconds"][name] for name in products}
        possible = all(type(each) is float and 0 < each < math.inf for each in seconds.values())
        if entry["conditions"] == conditions and possible:
            return seconds
    return None


def _forget(conditions: dict[str, Any]) -> None:
    """A damaged file, before the race: after it there may be one of another process."""
    with suppress(OSError, UsageError):
        _file(conditions).unlink(missing_ok=True)


def _keep(conditions: dict[str, Any], seconds: dict[str, float]) -> None:
    """Unless another process was first."""
    entry = {"seconds": seconds, "conditions": conditions}
    with suppress(OSError, UsageError, RunFailure):
        create_private(_file(conditions), json.dumps(entry, indent=1).encode())


def _file(conditions: dict[str, Any]) -> Path:
    """Raises UsageError where no home is known."""
    digest = hashlib.sha256(json.dumps(conditions, sort_keys=True).encode()).hexdigest()
    return user_cache() / FOLDER / f"{digest[:16]}.json"
