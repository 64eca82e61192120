"""Whether a choice of optimizer, precision or model is a cliff on this CPU.

python experiments/2026-11-29-speed/cliffs.py [--pairs 9] [--threads 1] [--precisions fp32,bf16]
    [CHOICE …]

Steps of 12 × 64 tokens with 256 of vocabulary at the default sizes, in turns with those of the
reference: gpt with AdamW in fp32. A choice's seconds by the reference's are set against its FLOPs
by the reference's. FLOPs are matrix products alone, those of the model as the harness counts them
and those that the optimizer makes, as torch counts them. CHOICE: parts of the names of rows.

The last column is the same beside a gpt of about as many FLOPs, by its width: a narrow model takes
longer for its FLOPs whatever it is.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import torch
from torch.utils.flop_counter import FlopCounterMode

from harness.cli.hydra_app import compose
from harness.common.errors import UsageError
from harness.common.paths import CONF
from harness.compute.costs import step_flops
from harness.compute.matmul import current_matmul
from harness.compute.race import race
from harness.config.model import build_model
from harness.config.settings import read_settings
from harness.diagnostics.probe import checked_compute
from harness.training.trainer import Trainer
from zoo.language_model import LanguageModel

ROWS, TIME, VOCABULARY = 12, 64, 256
COUNTS = {"ngram"}  # takes no steps
WIDTH = 128  # gpt's default
WIDTHS = (32, 48, 64, 80, 96, WIDTH, 160, 192)


@dataclass
class Training:
    """flops: of a step."""

    trainer: Trainer
    flops: float

    def seconds(self) -> float:
        ids = torch.randint(
            VOCABULARY, (ROWS, TIME + 1), generator=torch.Generator().manual_seed(0)
        )
        began = perf_counter()
        self.trainer.step((ids[:, :-1], ids[:, 1:]), 1.0, {"step": 0})
        return perf_counter() - began


def training(*words: str) -> Training:
    settings = read_settings(
        compose(
            ["device=cpu", "tokenizer=bytes", f"train.batch_size={ROWS}", f"train.seq_len={TIME}",
             *words]
        )
    )  # fmt: skip
    compute = checked_compute(settings)
    made = Trainer(settings, VOCABULARY, compute)
    with FlopCounterMode(display=False) as counter:
        made._optimizer.step()  # the gradients are zero

    def build() -> LanguageModel:
        return build_model(settings, VOCABULARY)

    return Training(made, ROWS * step_flops(build, TIME) + counter.get_total_flops())


def choices(precisions: list[str]) -> Iterator[tuple[str, list[str]]]:
    for optimizer in _names("optimizer"):
        for precision in precisions:
            words = ["model=gpt", f"optimizer={optimizer}", f"precision={precision}"]
            yield f"gpt, {optimizer}, {precision}", words
    for model in _names("model"):
        for precision in precisions:
            if model not in COUNTS:
                yield f"{model}, {precision}", [f"model={model}", f"precision={precision}"]


def _names(group: str) -> list[str]:
    return sorted(Path(path).stem for path in (CONF / group).glob("*.yaml"))


def row(name: str, words: list[str], references: dict[int, Training], pairs: int) -> str:
    """references: by their width."""
    try:
        own = training(*words)
        width = min(references, key=lambda each: abs(references[each].flops - own.flops))
        found = []
        for _ in range(min(2, pairs)):  # the first steps load what they need
            own.seconds()
        for _ in range(pairs):
            others = references[WIDTH].seconds(), references[width].seconds()
            found.append((own.seconds(), *others))
    except (UsageError, RuntimeError) as error:
        return f"| {name} | | | {str(error).splitlines()[0]} | | |"
    milliseconds = statistics.median(mine for mine, *_ in found) * 1e3
    line = f"| {name} | {milliseconds:.1f} |"
    for number, each in enumerate((WIDTH, width), 1):
        ratio = statistics.median(taken[0] / taken[number] for taken in found)
        flops = own.flops / references[each].flops
        share = f"{ratio / flops:.2f}" if flops > 0.01 else "–"
        mark = " **cliff**" if flops > 0.01 and ratio / flops > 2 else ""
        line += f" {ratio:.2f} | {flops:.2f} |" if number == 1 else ""
        line += f" {share}{mark}{f' ({each})' if each != WIDTH else ''} |"
    return line


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("choices", nargs="*", metavar="CHOICE")
    parser.add_argument("--pairs", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--precisions", default="fp32,bf16")
    given = parser.parse_intermixed_args()
    torch.set_num_threads(given.threads)
    references = {
        width: training("optimizer=adamw", "precision=fp32", f"model.n_embd={width}")
        for width in WIDTHS
    }
    for reference in references.values():
        for _ in range(3):
            reference.seconds()
    print(f"torch {torch.__version__}, {given.threads} threads, {current_matmul()}")
    print("a product, ms: " + ", ".join(f"{k} {v * 1e3:.2f}" for k, v in race("cpu").items()))
    print(
        "\n| choice | ms | to the reference | its FLOPs | by FLOPs | by a gpt of as many (width) |"
    )
    print("|---|---:|---:|---:|---:|---:|")
    for name, words in choices(given.precisions.split(",")):
        if not given.choices or any(part in name for part in given.choices):
            print(row(name, words, references, given.pairs), flush=True)


if __name__ == "__main__":
    main()
