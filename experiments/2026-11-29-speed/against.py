"""Our training steps and sampling against nanoGPT's and MEGABYTE-pytorch's, in alternation.

python experiments/2026-11-29-speed/against.py NANOGPT MEGABYTE [--device cuda] [ROW …]

NANOGPT, MEGABYTE: checkouts of github.com/karpathy/nanoGPT and lucidrains/MEGABYTE-pytorch (which
needs einops, beartype and tqdm). Each side is in a process of its own, with the allocator and the
BLAS that it has alone. They take turns, on a CPU of two steps, of which the second is timed: during
the first the other's threads come to rest. The ratio is the median over pairs of turns. The last
column is the counted FLOPs of our step over its seconds, by the rate of a large product here.
"""

from __future__ import annotations

import argparse
import importlib
import multiprocessing
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import nullcontext, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from multiprocessing.connection import Connection
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

from harness.cli.hydra_app import compose
from harness.compute.costs import step_flops
from harness.compute.device import Compute
from harness.config.model import build_model
from harness.config.settings import read_settings
from harness.diagnostics.doctor.machine import product_rate
from harness.diagnostics.probe import checked_compute
from harness.sampling.decode import SamplingParams, generate
from harness.sampling.fixed_step import FixedStep
from harness.training.trainer import Trainer

Work = Callable[[], object]
CHARACTERS, BYTES, GPT2 = 65, 256, 50304

# nanoGPT's README for a CPU, its config/train_shakespeare_char.py, and its GPT-2.
SMALL = {"block_size": 64, "n_layer": 4, "n_head": 4, "n_embd": 128}
LARGE = {"block_size": 256, "n_layer": 6, "n_head": 6, "n_embd": 384}
GPT2_124M = {"block_size": 1024, "n_layer": 12, "n_head": 12, "n_embd": 768}
# The model of MEGABYTE-pytorch's README in small: 64 patches of 8.
MEGABYTE_WORDS = [
    "model=megabyte", "model.patch_size=8", "model.n_layer_global=4", "model.n_embd_global=256",
    "model.n_head_global=4", "model.n_layer_local=2", "model.n_embd_local=128",
    "model.n_head_local=4",
]  # fmt: skip


@dataclass
class Side:
    """What is timed. at_best: its seconds by its FLOPs and the machine's product rate."""

    work: Work
    at_best: float | None = None


@dataclass
class Row:
    """Both sides, each made on a device, in a process of its own."""

    theirs: Callable[[str], Side]
    ours: Callable[[str], Side]


def batch(vocab: int, rows: int, time: int) -> tuple[Tensor, Tensor]:
    ids = torch.randint(vocab, (rows, time + 1), generator=torch.Generator().manual_seed(0))
    return ids[:, :-1].contiguous(), ids[:, 1:].contiguous()


def our_step(words: list[str], vocab: int, rows: int, time: int, device: str) -> Side:
    of_batch = [f"train.batch_size={rows}", f"train.seq_len={time}", f"device={device}"]
    settings = read_settings(compose([*words, *of_batch]))
    compute = checked_compute(settings)
    trainer = Trainer(settings, vocab, compute)
    data, row = batch(vocab, rows, time), {"step": 0}
    rate = product_rate(compute)
    assert rate is not None
    flops = rows * step_flops(lambda: build_model(settings, vocab), time)
    return Side(lambda: trainer.step(data, 1.0, dict(row)), flops / rate)


def model_words(sizes: dict[str, int], dropout: float) -> list[str]:
    own = [f"model.{name}={size}" for name, size in sizes.items() if name != "block_size"]
    exact = "model.activation=gelu_exact"
    return ["model=gpt", "model.bias=false", exact, f"model.dropout={dropout}", *own]


def nanogpt(sizes: dict[str, int], dropout: float, vocab: int, device: str) -> Any:
    from model import GPT, GPTConfig

    with redirect_stdout(StringIO()):
        made = GPT(GPTConfig(vocab_size=vocab, bias=False, dropout=dropout, **sizes))
    return made.to(device)


def optimizing(model: Any, optimizer: Any, loss: Callable[[], Tensor]) -> Work:
    """As nanoGPT's train.py: forward, backward, clip at 1, AdamW."""

    def step() -> None:
        loss().backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def against_nanogpt(
    sizes: dict[str, int],
    dropout: float,
    rows: int,
    ours: str,
    *,
    theirs: str = "fp32",
    vocab: int = CHARACTERS,
    compiled: tuple[bool, bool] = (False, False),
) -> Row:
    """ours, theirs: precisions. compiled: theirs and ours."""

    def make_theirs(device: str) -> Side:
        model = nanogpt(sizes, dropout, vocab, device)
        with redirect_stdout(StringIO()):
            optimizer = model.configure_optimizers(0.1, 1e-3, (0.9, 0.99), device)
        forward = torch.compile(model) if compiled[0] else model
        x, y = (ids.to(device) for ids in batch(vocab, rows, sizes["block_size"]))

        def loss() -> Tensor:
            with torch.autocast(device, torch.bfloat16) if theirs == "bf16" else nullcontext():
                found: Tensor = forward(x, y)[1]
            return found

        return Side(optimizing(model, optimizer, loss))

    def make_ours(device: str) -> Side:
        words = [
            *model_words(sizes, dropout), f"precision={ours}", f"compile={str(compiled[1]).lower()}"
        ]  # fmt: skip
        return our_step(words, vocab, rows, sizes["block_size"], device)

    return Row(make_theirs, make_ours)


def against_megabyte(ours: str) -> Row:
    def make_theirs(device: str) -> Side:
        from MEGABYTE_pytorch import MEGABYTE

        model = MEGABYTE(
            num_tokens=BYTES, dim=(256, 128), depth=(4, 2), max_seq_len=(64, 8), heads=4,
            dim_head=32, flash_attn=True,
        ).to(device)  # fmt: skip
        optimizer = torch.optim.AdamW(model.parameters(), 1e-3, (0.9, 0.99), fused=True)
        y = batch(BYTES, 8, 512)[1].to(device)
        return Side(optimizing(model, optimizer, lambda: model(y, return_loss=True)))

    words = [*MEGABYTE_WORDS, f"precision={ours}"]
    return Row(make_theirs, lambda device: our_step(words, BYTES, 8, 512, device))


def sampling(sizes: dict[str, int], rows: int, compiled: bool = False) -> Row:
    """From one token to the end of the window. compiled: by a step that is made before."""
    new = sizes["block_size"] - 1

    def prompt(device: str) -> Tensor:
        return torch.zeros(rows, 1, dtype=torch.long, device=device)

    def make_theirs(device: str) -> Side:
        theirs = nanogpt(sizes, 0.0, CHARACTERS, device).eval()
        return Side(lambda: theirs.generate(prompt(device), new))

    def make_ours(device: str) -> Side:
        words = [*model_words(sizes, 0.0), f"train.seq_len={sizes['block_size']}"]
        settings = read_settings(compose([*words, f"device={device}", "precision=fp32"]))
        checked_compute(settings)  # as a run has it
        ours = build_model(settings, CHARACTERS).to(device).eval()
        step = FixedStep(ours, rows) if compiled else None
        return Side(lambda: generate(ours, prompt(device), new, SamplingParams(), step=step))

    return Row(make_theirs, make_ours)


ON_CPU = {
    "step 0.8 M, both fp32": against_nanogpt(SMALL, 0.0, 12, "fp32"),
    "step 0.8 M, ours bf16": against_nanogpt(SMALL, 0.0, 12, "bf16"),
    "step 0.8 M, ours bf16, compiled": against_nanogpt(
        SMALL, 0.0, 12, "bf16", compiled=(False, True)
    ),
    "step 0.8 M, both bf16": against_nanogpt(SMALL, 0.0, 12, "bf16", theirs="bf16"),
    "step 10.65 M, dropout 0.2, both fp32": against_nanogpt(LARGE, 0.2, 8, "fp32"),
    "step 10.65 M, dropout 0.2, ours bf16": against_nanogpt(LARGE, 0.2, 8, "bf16"),
    "step 10.65 M, dropout 0.2, both bf16": against_nanogpt(LARGE, 0.2, 8, "bf16", theirs="bf16"),
    "step 10.65 M, no dropout, both fp32": against_nanogpt(LARGE, 0.0, 8, "fp32"),
    "step MEGABYTE, both fp32": against_megabyte("fp32"),
    "step MEGABYTE, ours bf16": against_megabyte("bf16"),
} | {
    f"{name}{', compiled' * compiled}": sampling(sizes, rows, compiled)
    for compiled in (False, True)
    for name, sizes, rows in (
        ("63 characters, 0.8 M, alone", SMALL, 1),
        ("63 characters, 0.8 M, 10 at a time", SMALL, 10),
        ("255 characters, 10.65 M, alone", LARGE, 1),
    )
}
ON_GPU = {
    f"step {name}, both bf16{', compiled' * compiled}": against_nanogpt(
        sizes, dropout, rows, "bf16", theirs="bf16", vocab=vocab, compiled=(compiled, compiled)
    )
    for compiled in (False, True)
    for name, sizes, dropout, rows, vocab in (
        ("124 M", GPT2_124M, 0.0, 16, GPT2),
        ("10.65 M, dropout 0.2", LARGE, 0.2, 64, CHARACTERS),
    )
} | {
    f"255 characters, 10.65 M, {name}{', one CUDA graph a token' * graph}": sampling(
        LARGE, rows, graph
    )
    for graph in (False, True)
    for name, rows in (("alone", 1), ("10 at a time", 10))
}


class Process:
    """A side in a process of its own. plan: the name of the table of rows in `module`, which takes
    the paths of `path`."""

    def __init__(self, module: str, plan: str, name: str, which: str, device: str) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        given = (theirs, sys.path, module, plan, name, which, device, torch.get_num_threads())
        self._process = context.Process(target=serve, args=given, daemon=True)
        self._process.start()
        theirs.close()
        self.at_best: float | None = self._pipe.recv()

    def seconds(self) -> float:
        self._pipe.send(True)
        found: float = self._pipe.recv()
        return found

    def end(self) -> None:
        self._pipe.send(False)
        self._process.join()


def serve(
    pipe: Connection,
    path: list[str],
    module: str,
    plan: str,
    name: str,
    which: str,
    device: str,
    threads: int,
) -> None:
    """Make a side, and time it when asked."""
    sys.path[:] = path
    torch.set_num_threads(threads)
    rows: Mapping[str, Row] = getattr(importlib.import_module(module), plan)
    side: Side = getattr(rows[name], which)(device)
    compute = Compute(torch.device(device), "fp32")
    pipe.send(side.at_best)
    while pipe.recv():
        if device == "cpu":
            side.work()
        begun = perf_counter()
        side.work()
        compute.synchronize()
        pipe.send(perf_counter() - begun)


def measure(module: str, plan: str, name: str, device: str, number: int) -> str:
    """The row of the table."""
    theirs, ours = (Process(module, plan, name, side, device) for side in ("theirs", "ours"))
    pairs = [(theirs.seconds(), ours.seconds()) for _ in range(3 + number)][3:]
    theirs.end()
    ours.end()
    low, middle, high = statistics.quantiles([own / other for other, own in pairs], n=4)
    other, own = (statistics.median(each) for each in zip(*pairs, strict=True))
    share = "" if ours.at_best is None else f"{ours.at_best / own:.0%}"
    return (
        f"| {name} | {other * 1e3:.1f} | {own * 1e3:.1f} | {middle:.3f} | {low:.3f} to {high:.3f} "
        f"| {share} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("nanogpt", type=Path)
    parser.add_argument("megabyte", type=Path)
    parser.add_argument("rows", nargs="*", metavar="ROW", help="parts of the names of rows")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--pairs", type=int, default=30)
    given = parser.parse_intermixed_args()
    torch.set_num_threads(given.threads)
    for checkout in (given.nanogpt, given.megabyte):
        sys.path.insert(0, str(checkout))
        command = ["git", "-C", str(checkout), "rev-parse", "--short", "HEAD"]
        commit = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
        print(f"{checkout.name} {commit}")
    print(f"torch {torch.__version__}, {given.device}, {given.threads} threads\n")
    print("| what | theirs, ms | ours, ms | ratio | half of the pairs | of the products' rate |")
    print("|---|---:|---:|---:|---|---:|")
    plan = "ON_CPU" if given.device == "cpu" else "ON_GPU"
    for name in ON_CPU if given.device == "cpu" else ON_GPU:
        if not given.rows or any(part in name for part in given.rows):
            print(measure("against", plan, name, given.device, given.pairs), flush=True)


if __name__ == "__main__":
    main()
