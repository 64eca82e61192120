"""Which device a training gets."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

from harness.common.errors import UsageError
from harness.common.paths import REPOSITORY
from harness.compute import device
from harness.compute.device import Compute
from harness.compute.processor import OF_FP32, VARIABLES


def test_a_device_that_is_not_there_is_refused_by_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(UsageError, match="cuda:9 is not on this machine; it has: cpu, cuda:0 to"):
        Compute.choose("cuda:9", "fp32")


@pytest.mark.parametrize("name", OF_FP32)
def test_what_makes_fp32_another_one_is_named_once(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    device._say.cache_clear()
    for usual in ("", OF_FP32[name], OF_FP32[name].lower()):
        monkeypatch.setenv(name, usual)
        device.make_deterministic()
    assert capsys.readouterr().err == ""
    monkeypatch.setenv(name, "1\n")
    device.make_deterministic()
    device.make_deterministic()
    said = f"{name}=1 : fp32 may be rounded to fewer bits; it is recorded\n"
    assert capsys.readouterr().err == said


def test_no_variable_is_recorded_that_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MKL_CBWR", "")
    fields = {"device", "name", "precision", "tf32", "matmul", "threads"}
    assert Compute.choose("cpu", "fp32").describe().keys() == fields


@pytest.mark.long
def test_a_folder_that_torchs_compiler_can_not_make_is_one_line() -> None:
    line = "from harness.compute.device import make_deterministic as f; f(compiled=True)"
    ended = subprocess.run(
        [sys.executable, "-c", line], env=os.environ | {"TORCHINDUCTOR_CACHE_DIR": "/dev/null/x"},
        cwd=REPOSITORY, capture_output=True, text=True,
    )  # fmt: skip
    said = ended.stderr.splitlines()[-1]
    assert "UsageError: torch can't make the folder of its compiler ([Errno 20]" in said


def test_the_generator_of_its_own_gpu_is_seeded(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch seeds that of the current device, which is the first one unless it is told."""
    current, seeded = [torch.device("cuda:0")], []

    @contextmanager
    def on(device: torch.device) -> Iterator[None]:
        current.append(device)
        yield
        current.pop()

    monkeypatch.setattr(torch.cuda, "device", on)
    monkeypatch.setattr(torch.cuda, "manual_seed", lambda seed: seeded.append((current[-1], seed)))
    Compute(torch.device("cuda:1"), "fp32").seed(3)
    assert seeded == [(torch.device("cuda:1"), 3)]
