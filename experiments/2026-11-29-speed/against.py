"""Our training steps and sampling against nanoGPT's and MEGABYTE-pytorch's, in alternation.

python experiments/2026-11-29-speed/against.py NANOGPT MEGABYTE [--threads N] [--pairs N] [ROW …]

NANOGPT, MEGABYTE: checkouts of github.com/karpathy/nanoGPT and lucidrains/MEGABYTE-pytorch (which
needs einops, beartype and tqdm). A step of theirs is right before one of ours, and the ratio is the
median over such pairs.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

from harness.cli.hydra_app import compose
from harness.config.settings import read_settings
from harness.diagnostics.probe import checked_compute
from harness.sampling.decode import SamplingParams, generate
from harness.training.trainer import Trainer
from zoo.language_model import LanguageModel

Timed = Callable[[], object]
CHARACTERS, BYTES = 65, 256

# nanoGPT's config/train_shakespeare_char.py, and the same with its README's settings for a CPU.
SMALL = {"block_size": 64, "n_layer": 4, "n_head": 4, "n_embd": 128}
LARGE = {"block_size": 256, "n_layer": 6, "n_head": 6, "n_embd": 384}
RECIPE = {"optimizer": "adamw", "clip": 1.0}


def batch(vocab: int, rows: int, time: int) -> tuple[Tensor, Tensor]:
    ids = torch.randint(vocab, (rows, time + 1), generator=torch.Generator().manual_seed(0))
    return ids[:, :-1].contiguous(), ids[:, 1:].contiguous()


def our_step(words: list[str], vocab: int, rows: int, time: int) -> Timed:
    settings = read_settings(
        compose([*words, f"train.batch_size={rows}", f"train.seq_len={time}", "device=cpu"])
    )
    trainer = Trainer(settings, vocab, checked_compute(settings))
    data, row = batch(vocab, rows, time), {"step": 0}
    return lambda: trainer.step(data, 1.0, dict(row))


def model_words(sizes: dict[str, int], dropout: float) -> list[str]:
    return [
        "model=gpt", "model.bias=false", f"model.dropout={dropout}",
        *(f"model.{name}={size}" for name, size in sizes.items() if name != "block_size"),
    ]  # fmt: skip


def nanogpt_step(sizes: dict[str, int], dropout: float, rows: int, bf16: bool) -> Timed:
    """As nanoGPT's train.py: forward, backward, clip at 1, AdamW."""
    model = nanogpt(sizes, dropout)
    optimizer = model.configure_optimizers(0.1, 1e-3, (0.9, 0.99), "cpu")
    context = torch.autocast("cpu", torch.bfloat16) if bf16 else nullcontext()
    x, y = batch(CHARACTERS, rows, sizes["block_size"])

    def step() -> None:
        with context:
            _, loss = model(x, y)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def nanogpt(sizes: dict[str, int], dropout: float) -> Any:
    from model import GPT, GPTConfig

    return GPT(GPTConfig(vocab_size=CHARACTERS, bias=False, dropout=dropout, **sizes))


def megabyte_step(rows: int) -> Timed:
    from MEGABYTE_pytorch import MEGABYTE

    model = MEGABYTE(
        num_tokens=BYTES, dim=(256, 128), depth=(4, 2), max_seq_len=(64, 8), heads=4, dim_head=32,
        flash_attn=True,
    )  # fmt: skip
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3, (0.9, 0.99), fused=True)
    _, y = batch(BYTES, rows, 512)

    def step() -> None:
        model(y, return_loss=True).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


MEGABYTE_WORDS = [
    "model=megabyte", "model.patch_size=8", "model.n_layer_global=4", "model.n_embd_global=256",
    "model.n_head_global=4", "model.n_layer_local=2", "model.n_embd_local=128",
    "model.n_head_local=4",
]  # fmt: skip


def our_sampling(sizes: dict[str, int], rows: int, new: int) -> Timed:
    settings = read_settings(
        compose([*model_words(sizes, 0.0), f"train.seq_len={sizes['block_size']}"])
    )
    model = settings.build("model", LanguageModel, vocab_size=CHARACTERS).eval()
    prompt = torch.zeros(rows, 1, dtype=torch.long)
    return lambda: generate(model, prompt, new, SamplingParams())


def nanogpt_sampling(sizes: dict[str, int], rows: int, new: int) -> Timed:
    model = nanogpt(sizes, 0.0).eval()
    prompt = torch.zeros(rows, 1, dtype=torch.long)
    return lambda: model.generate(prompt, new)


def step_pair(sizes: dict[str, int], dropout: float, rows: int, ours: str, bf16: bool) -> Any:
    words = [*model_words(sizes, dropout), f"precision={ours}"]
    return lambda: (
        nanogpt_step(sizes, dropout, rows, bf16),
        our_step(words, CHARACTERS, rows, sizes["block_size"]),
    )


def sampling_pair(sizes: dict[str, int], rows: int) -> Any:
    new = sizes["block_size"] - 1
    return lambda: (nanogpt_sampling(sizes, rows, new), our_sampling(sizes, rows, new))


PAIRS: dict[str, Callable[[], tuple[Timed, Timed]]] = {
    "step 0.8 M, both fp32": step_pair(SMALL, 0.0, 12, "fp32", False),
    "step 0.8 M, ours bf16": step_pair(SMALL, 0.0, 12, "bf16", False),
    "step 0.8 M, both bf16": step_pair(SMALL, 0.0, 12, "bf16", True),
    "step 10.65 M, dropout 0.2, both fp32": step_pair(LARGE, 0.2, 8, "fp32", False),
    "step 10.65 M, dropout 0.2, ours bf16": step_pair(LARGE, 0.2, 8, "bf16", False),
    "step 10.65 M, no dropout, both fp32": step_pair(LARGE, 0.0, 8, "fp32", False),
    "step MEGABYTE, both fp32": lambda: (
        megabyte_step(8),
        our_step([*MEGABYTE_WORDS, "precision=fp32"], BYTES, 8, 512),
    ),
    "step MEGABYTE, ours bf16": lambda: (
        megabyte_step(8),
        our_step([*MEGABYTE_WORDS, "precision=bf16"], BYTES, 8, 512),
    ),
    "63 characters, 0.8 M, alone": sampling_pair(SMALL, 1),
    "63 characters, 0.8 M, 10 at a time": sampling_pair(SMALL, 10),
    "255 characters, 10.65 M, alone": sampling_pair(LARGE, 1),
}


def timed(work: Timed) -> float:
    begun = perf_counter()
    work()
    return perf_counter() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("nanogpt", type=Path)
    parser.add_argument("megabyte", type=Path)
    parser.add_argument("rows", nargs="*", metavar="ROW", help="parts of the names of rows")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--pairs", type=int, default=30)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    for checkout in (given.nanogpt, given.megabyte):
        sys.path.insert(0, str(checkout))
        command = ["git", "-C", str(checkout), "rev-parse", "--short", "HEAD"]
        commit = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
        print(f"{checkout.name} {commit}")
    print(f"torch {torch.__version__}, {given.threads} threads\n")
    print("| what | theirs, ms | ours, ms | ours / theirs | half of the pairs |")
    print("|---|---:|---:|---:|---|")
    for name, make in PAIRS.items():
        if given.rows and not any(part in name for part in given.rows):
            continue
        theirs, ours = make()
        for _ in range(3):
            theirs(), ours()
        pairs = [(timed(theirs), timed(ours)) for _ in range(given.pairs)]
        ratios = [own / other for other, own in pairs]
        low, middle, high = statistics.quantiles(ratios, n=4)
        other, own = (statistics.median(each) * 1e3 for each in zip(*pairs, strict=True))
        print(
            f"| {name} | {other:.1f} | {own:.1f} | {middle:.3f} | {low:.3f} to {high:.3f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
