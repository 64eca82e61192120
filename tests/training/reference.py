"""A training's settings, and its model, batches and scores written out by hand."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

TRAIN = "é" + "abcdéfgh " * 299 + "abcqrst\n"  # 3000 bytes
VAL = "é" + "abcdéfgh abcdhgfé " * 49 + "€€" + "x"  # x, z and € are unknown
TEST = "é" + "qrstqtsr qsrttrqs " * 55 + "zz"
VAL, TEST = (text + "a" * (1000 - len(text.encode())) for text in (VAL, TEST))
SHARES = [0.6, 0.2, 0.2]
STEPS, EVERY, RUIN, SKIPPED = 12, 2, 8, 4
T, C, STRIDE, ROWS, ACCUMULATE = 8, 8, 3, 3, 2
PEAK, PART, CLIP, DECAY, SMOOTHING, EMA, WARMUP = 0.5, 1.5, 0.6, 0.02, 0.1, 0.6, 3
SETTINGS = (
    *("model=gpt", "model.n_layer=1", "model.n_head=2", f"model.n_embd={C}"),
    *("tokenizer=char", f"data.split={SHARES}", "observe=off", "seed=3"),
    *(f"train.steps={STEPS}", f"train.seq_len={T}", f"train.batch_size={ROWS}"),
    *(f"train.accumulate={ACCUMULATE}", f"train.clip={CLIP}", f"train.ema={EMA}"),
    *(f"train.label_smoothing={SMOOTHING}", "train.on_non_finite=skip"),
    *("optimizer=sgd", f"optimizer.lr={PEAK}", "optimizer.momentum=0", "optimizer.nesterov=false"),
    *(f"optimizer.weight_decay={DECAY}", f"optimizer.lr_of={{position_embedding: {PART}}}"),
    *("schedule=step", f"schedule.at=[{RUIN}]", "schedule.factor=12"),
    *(f"schedule.warmup={WARMUP}", "schedule.warmup_start=0.1"),
    *(f"eval.every={EVERY}", f"eval.stride={STRIDE}", "eval.batch_size=7", "checkpoint.every=5"),
)


def ignore_some(targets: Tensor, step: int) -> Tensor:
    """Each row ends somewhere; a micro-batch of ROWS has another share of targets than the next."""
    ends = (torch.arange(len(targets)) * 3 + step) % T
    ends[0] = T
    return targets.where(torch.arange(T) < ends[:, None], -1)


CHARACTERS = sorted(set(TRAIN))
V = len(CHARACTERS)


@functools.cache
def ids_of(text: str) -> Tensor:
    return torch.tensor([CHARACTERS.index(c) for c in text if c in CHARACTERS])


def batch(step: int) -> tuple[Tensor, Tensor]:
    """Rows that begin where numpy's Philox, keyed by (seed, step), says."""
    ids, rows = ids_of(TRAIN), ROWS * ACCUMULATE
    raw = np.random.Philox(key=[3, step]).random_raw(rows)
    starts = (raw % (len(ids) - T)).astype(int)
    rows_of_ids = torch.stack([ids[start : start + T + 1] for start in starts])
    return rows_of_ids[:, :-1], ignore_some(rows_of_ids[:, 1:], step)


@dataclass(frozen=True)
class ByHand:
    """Of a model on a text: what a score says."""

    nats: float
    tokens: int
    bytes: int
    unknown: int

    def numbers(self, prefix: str = "") -> dict[str, float]:
        return {
            f"{prefix}nats_per_token": self.nats / self.tokens,
            f"{prefix}bits_per_byte": self.nats / math.log(2) / self.bytes,
            f"{prefix}perplexity": math.exp(self.nats / self.tokens),
        }

    def summary(self, prefix: str) -> dict[str, float]:
        counts = {name: getattr(self, name) for name in ("tokens", "bytes", "unknown")}
        return {
            **self.numbers(prefix),
            **{f"{prefix}{name}": count for name, count in counts.items()},
            f"{prefix}stride": STRIDE,
        }


@torch.no_grad()
def score(model: nn.Module, text: str) -> ByHand:
    """Each token after the first by the first window that reaches it; windows of T tokens move by
    STRIDE, the last one as far as is left."""
    ids = ids_of(text)
    tokens = len(ids) - 1
    ends = [*range(T, tokens, STRIDE), tokens]
    logits = model(torch.stack([ids[end - T : end] for end in ends]))
    nats, window = 0.0, 0
    for target in range(1, tokens + 1):
        window += target > ends[window]
        place = target - 1 - (ends[window] - T)
        nats -= logits[window, place].double().log_softmax(-1)[ids[target]].item()
    unknown = sum(c not in CHARACTERS for c in text)
    # A place in the text and a code point that is no surrogate.
    nats += unknown * (math.log(len(ids) + unknown) + math.log(0x110000 - 2048))
    return ByHand(nats, tokens, len(text.encode()) - len(text[0].encode()), unknown)
