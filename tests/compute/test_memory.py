"""A model that no memory could hold is refused before anything is allocated."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from harness.cli.hydra_app import compose
from harness.common.errors import UsageError
from harness.compute import memory as memory_of
from harness.compute.memory import PeakMemory, total_memory
from harness.config.keys import names_in_group
from harness.config.settings import read_settings
from harness.training import memory
from harness.training.optim import build_optimizer, state_size
from tests.small_runs import train
from zoo.language_model import LanguageModel

SMALL = ("model=gpt", "model.n_layer=1", "model.n_head=2", "model.n_embd=8", "train.seq_len=8")


@pytest.mark.parametrize("optimizer", names_in_group("optimizer"))
def test_the_optimizers_state_is_counted(optimizer: str) -> None:
    """Against the state that a real step leaves."""
    settings = read_settings(compose([*SMALL, f"optimizer={optimizer}"]))
    model = settings.build("model", LanguageModel, vocab_size=23)
    chosen = build_optimizer(settings, model)
    model(torch.zeros(1, 8, dtype=torch.int64)).sum().backward()
    chosen.step()
    kept = torch.utils._pytree.tree_leaves(chosen.state_dict())
    tensors = [each for each in kept if isinstance(each, torch.Tensor) and each.numel() > 1]
    assert state_size(settings, model) == sum(each.numel() for each in tensors)


def test_the_peak_is_what_was_held_at_once_in_bytes_and_starts_anew() -> None:
    """The kernel counts pages per CPU and sums them late: hence a tenth, not an equality."""
    memory_of.keep_freed_memory()
    size = 2**28
    first = PeakMemory(torch.device("cpu"))
    before = first.read()
    held = torch.ones(size, dtype=torch.uint8)
    del held
    assert first.read() - before == pytest.approx(size, rel=0.1)
    assert PeakMemory(torch.device("cpu")).read() - before < 0.1 * size


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="of glibc's allocator alone")
@pytest.mark.parametrize(("mib", "is_kept"), [(100, True), (1100, False)])
def test_what_a_cpu_computes_in_stays_with_the_process(mib: int, is_kept: bool) -> None:
    """Whether the address space shrinks when a tensor is freed, in a process of its own."""
    code = f"""
import resource, torch
from harness.compute.device import Compute

def pages():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[0])

Compute.choose("cpu", "fp32")
held = torch.empty({mib} << 20, dtype=torch.uint8)
before = pages()
del held
print((before - pages()) * resource.getpagesize() < {mib} << 19)
"""
    plain = {name: text for name, text in os.environ.items() if not name.startswith("MALLOC_")}
    found = subprocess.run(
        [sys.executable, "-c", code], env=plain, capture_output=True, text=True, check=True
    )
    assert found.stdout == f"{is_kept}\n"


@pytest.mark.parametrize(
    ("most", "expected"),
    [
        (1 << 30, [(-3, 1 << 30), (-1, -1)]),
        (32 << 20, [(-3, 1 << 30), (-3, 32 << 20), (-1, -1)]),
        (0, [(-3, 1 << 30), (-3, 32 << 20)]),
    ],
)
def test_older_versions_of_glibc_take_a_smaller_threshold_or_none(
    most: int, expected: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second alone would map what is large anew each time."""
    asked: list[tuple[int, int]] = []

    def mallopt(name: str, parameter: int, value: int) -> int:
        asked.append((parameter, value))
        return int(value <= most)

    monkeypatch.setattr(memory_of, "_glibc", mallopt)
    for name in [name for name in os.environ if name.startswith("MALLOC_")]:
        monkeypatch.delenv(name)
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    memory_of.keep_freed_memory()
    assert asked == expected


@pytest.mark.parametrize(
    "variable", ["MALLOC_TRIM_THRESHOLD_=1000", "GLIBC_TUNABLES=glibc.malloc.trim_threshold=1000"]
)
def test_what_the_environment_says_of_malloc_stays(
    variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(*variable.split("=", 1))
    monkeypatch.setattr(memory_of, "_glibc", lambda *given: pytest.fail("set all the same"))
    memory_of.keep_freed_memory()


def test_a_model_that_fits_nowhere_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The bigram of V tokens under AdamW: 16 bytes for each of V·V parameters."""
    settings = read_settings(compose(["model=bigram"]))
    needed = 16 * 300**2
    monkeypatch.setattr(memory, "total_memory", lambda device: needed)
    memory.require_memory(settings, 300, torch.device("cpu"))
    settings = settings.replace(train=settings.train.replace(ema=0.9))
    with pytest.raises(UsageError, match="gradients and optimizer state take"):
        memory.require_memory(settings, 300, torch.device("cpu"))
    settings = settings.replace(train=settings.train.replace(ema=None))
    with pytest.raises(UsageError, match=r"model=bigram has 90,601 parameters with 301 tokens"):
        memory.require_memory(settings, 301, torch.device("cpu"))


def test_nothing_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "total_memory", lambda device: 1000)
    with pytest.raises(UsageError, match="choose a smaller model"):
        train(tmp_path / "a", *SMALL)
    assert not (tmp_path / "a" / "run").exists()


def test_there_is_memory() -> None:
    assert total_memory(torch.device("cpu")) > 2**30
