"""What a token costs as the text grows.

python experiments/2026-11-29-speed/sampling.py [THREADS]

Each model at its default size with 256 tokens of vocabulary, in fp32. After prompts of 100, 1,000
and 10,000 tokens the median of 200 tokens is timed, in turns. A model with a window gives a token
by the past that it keeps; at the window's end it begins anew from the last half, and the mean over
two windows says what that costs. MEGABYTE with a window of 8,192: a byte at its end, by what it
keeps and by recomputing everything. And the rate at which a token of the GPT of 10.65 M reads its
weights, beside that of a sum over as many bytes.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable
from functools import partial
from time import perf_counter

import torch
from torch import Tensor

from harness.cli.hydra_app import compose
from harness.compute.matmul import blas_for_small
from harness.config.model import build_model
from harness.config.settings import read_settings
from harness.diagnostics.probe import checked_compute
from harness.sampling.decode import SamplingParams, generate
from zoo.language_model import LanguageModel

VOCAB, LENGTHS, TOKENS, ROUNDS = 256, (100, 1_000, 10_000), 40, 5
UNBOUNDED = (
    *("rnn", "gru", "lstm", "wavenet", "mlp", "mamba2", "gated_deltanet", "mlstm"),
    "rwkv7",
)
WINDOW, PATCH = 8192, 8


def model_of(*words: str) -> LanguageModel:
    settings = read_settings(compose([*words, "precision=fp32", "device=cpu"]))
    checked_compute(settings)
    made = build_model(settings, VOCAB).eval()
    for weight in made.parameters():
        weight.requires_grad_(False)
    return made


def ids(rows: int, time: int) -> Tensor:
    return torch.randint(VOCAB, (rows, time), generator=torch.Generator().manual_seed(0))


def seconds(work: Callable[[], object]) -> float:
    begun = perf_counter()
    work()
    return perf_counter() - begun


@torch.inference_mode()
def per_token(model: LanguageModel) -> dict[int, float]:
    """Milliseconds of a token after so many."""
    caches = {}
    for length in LENGTHS:
        caches[length] = model.init_cache(1)
        for piece in ids(1, length).split(1_000, dim=1):
            model(piece, caches[length])
    taken: dict[int, list[float]] = {length: [] for length in LENGTHS}
    token = ids(1, 1)
    for _ in range(ROUNDS):
        for length, cache in caches.items():
            taken[length] += [seconds(partial(model, token, cache)) for _ in range(TOKENS)]
    return {length: statistics.median(each) * 1e3 for length, each in taken.items()}


@torch.inference_mode()
def of_a_window(model: LanguageModel) -> tuple[float, float, float]:
    """Milliseconds of a token: within the window, over two windows, and by recomputing a full
    one."""
    assert model.block_size is not None
    size, prompt = model.block_size, ids(1, 1)
    generate(model, prompt, size, SamplingParams())
    within = seconds(lambda: generate(model, prompt, size - 1, SamplingParams())) / (size - 1)
    over = seconds(lambda: generate(model, prompt, 2 * size, SamplingParams())) / (2 * size)
    full = statistics.median(seconds(lambda: model(ids(1, size))) for _ in range(20))
    return within * 1e3, over * 1e3, full * 1e3


@torch.inference_mode()
def megabyte() -> tuple[float, float]:
    """Milliseconds of a byte at the end of a full window: kept, and recomputed."""
    model = model_of("model=megabyte", f"train.seq_len={WINDOW}", f"model.patch_size={PATCH}")
    assert model.block_size == WINDOW
    text, cache = ids(1, WINDOW), model.init_cache(1)
    last = 16 * PATCH  # whole patches: a byte in eight runs the global model
    model(text[:, : WINDOW - last], cache)
    kept = seconds(lambda: [model(byte, cache) for byte in text[:, -last:].split(1, dim=1)]) / last
    again = statistics.median(seconds(lambda: model(text)) for _ in range(5))
    return kept * 1e3, again * 1e3


@torch.inference_mode()
def against_memory() -> tuple[float, float]:
    """GB/s at which a token of the GPT of 10.65 M reads its weights, and at which as many bytes are
    summed up."""
    sizes = ("n_layer=6", "n_head=6", "n_embd=384", "bias=false", "activation=gelu_exact")
    model = model_of("model=gpt", "train.seq_len=256", *(f"model.{each}" for each in sizes))
    weights = sum(weight.nbytes for weight in model.parameters())
    prompt, row = ids(1, 1), torch.ones(weights // 4)
    tokens, sums = [], []
    for _ in range(5):
        tokens.append(seconds(lambda: generate(model, prompt, 255, SamplingParams())) / 255)
        sums.append(statistics.median(seconds(row.sum) for _ in range(50)))
    return weights / statistics.median(tokens) / 1e9, weights / statistics.median(sums) / 1e9


def main() -> None:
    torch.set_num_threads(int(sys.argv[1]) if len(sys.argv) > 1 else 1)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads\n")
    ours, best = against_memory()
    print(f"GPT of 10.65 M: weights at {ours:.1f} GB/s, a sum at {best:.1f}: {ours / best:.0%}\n")
    print(f"| model | {' | '.join(f'after {n:,}, ms' for n in LENGTHS)} | last by first |")
    print("|---|---:|---:|---:|---:|")
    for name in UNBOUNDED:
        model = model_of(f"model={name}")
        with blas_for_small(model):  # as sampling does
            found = per_token(model)
        ratio = found[LENGTHS[-1]] / found[LENGTHS[0]]
        numbers = " | ".join(f"{ms:.3f}" for ms in found.values())
        print(f"| {name} | {numbers} | {ratio:.2f} |", flush=True)
    print("\n| model | within the window, ms | over two windows, ms | recomputing one, ms |")
    print("|---|---:|---:|---:|")
    for name in ("gpt", "gpt_modern", "megabyte"):
        within, over, full = of_a_window(model_of(f"model={name}"))
        print(f"| {name} | {within:.3f} | {over:.3f} | {full:.3f} |", flush=True)
    kept, again = megabyte()
    print(f"\nMEGABYTE, window {WINDOW:,}: {kept:.2f} ms a byte, {again:.0f} ms recomputed")
    print(f"ratio {again / kept:.0f}")


if __name__ == "__main__":
    main()
