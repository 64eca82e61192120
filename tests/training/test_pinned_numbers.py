"""Every number of metrics.jsonl and summary.json, computed again with nothing of the harness.

One training has what could be mixed up: micro-batches, targets that do not count, clipping that
bites at some steps, label smoothing, decay, a part with its own rate, a moving average, a skipped
step, a best score in the middle, characters that train never showed, a text whose first character
has two bytes, and a test split that gets worse as validation gets better. The test trains again, in
plain PyTorch.
"""

from __future__ import annotations

import copy
import hashlib
import importlib.metadata
import json
import math
import os
import platform
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.common.clock import Clock
from harness.common.paths import REPOSITORY
from harness.compute.memory import PeakMemory
from harness.compute.processor import VARIABLES
from harness.compute.race import faster_matmul
from harness.training import loop, trainer
from tests.small_runs import train
from tests.training.reference import (
    ACCUMULATE,
    CHARACTERS,
    CLIP,
    DECAY,
    EMA,
    EVERY,
    PART,
    PEAK,
    ROWS,
    RUIN,
    SETTINGS,
    SHARES,
    SKIPPED,
    SMOOTHING,
    STEPS,
    TEST,
    TRAIN,
    VAL,
    WARMUP,
    ByHand,
    C,
    T,
    V,
    batch,
    ignore_some,
    score,
)
from zoo.gpt import GPT

# The training, by the harness


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("pinned")
    assert [len(text.encode()) for text in (TRAIN, VAL, TEST)] == [3000, 1000, 1000]
    (folder / "corpus.txt").write_text(TRAIN + VAL + TEST)
    draw, add, score = loop.draw_batch, trainer.add_gradients, loop.score_split
    read_memory = PeakMemory.read
    clock, micro_batches, readings = [0.0], [0], []

    def drawing(ids: Any, seed: int, step: int, *rest: Any) -> tuple[Tensor, Tensor]:
        inputs, targets = draw(ids, seed, step, *rest)
        return inputs, ignore_some(targets, step)

    def adding(model: nn.Module, *rest: Any) -> Tensor:
        found = add(model, *rest)
        if micro_batches[0] // ACCUMULATE == SKIPPED:
            next(model.parameters()).grad.view(-1)[0] = math.nan
        micro_batches[0] += 1
        return found

    def scoring(*arguments: Any, **options: Any) -> Any:
        clock[0] += 100  # which no number may contain
        return score(*arguments, **options)

    def ticking() -> float:
        clock[0] += 0.5
        return clock[0]

    def reading(memory: PeakMemory) -> int:
        readings.append(read_memory(memory))
        return readings[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "draw_batch", drawing)
        patch.setattr(trainer, "add_gradients", adding)
        patch.setattr(loop, "score_split", scoring)
        patch.setattr(Clock, "__call__", lambda clock: ticking())
        patch.setattr(PeakMemory, "read", reading)
        assert train(folder / "a", *SETTINGS) == 0
    (folder / "peak-memory").write_text(str(readings[-1]))
    return folder / "a/run"


# The training, by hand


@dataclass
class Trained:
    """rows: as metrics.jsonl should have them. val, test: the score of the average at each
    evaluation. weights, averages: before each step, and after the last."""

    rows: list[dict[str, float | None]] = field(default_factory=list)
    val: dict[int, ByHand] = field(default_factory=dict)
    test: dict[int, ByHand] = field(default_factory=dict)
    weights: list[dict[str, Tensor]] = field(default_factory=list)
    averages: list[dict[str, Tensor]] = field(default_factory=list)

    @property
    def best(self) -> int:
        return min(self.val, key=lambda step: self.val[step].nats)


def flops_of_a_step() -> float:
    """A multiplication and an addition are two; backwards twice the forward pass."""
    products = T * (24 * C**2 + 2 * C * V)  # of a token: attention's and the feed-forward's maps
    attention = 2 * 2 * T * T * C  # queries with keys, weights with values
    return 3.0 * (products + attention) * ROWS * ACCUMULATE


@pytest.fixture(scope="module")
def by_hand() -> Trained:
    found = Trained()
    torch.manual_seed(3)
    model = GPT(V, T, n_layer=1, n_head=2, n_embd=C)
    average, started = copy.deepcopy(model), False
    tokens = text_bytes = 0
    for step in range(STEPS + 1):
        found.weights.append(copy.deepcopy(model.state_dict()))
        found.averages.append(copy.deepcopy(average.state_dict()))
        row: dict[str, float | None] = {"step": step, "tokens": tokens, "bytes": text_bytes}
        row["epochs"] = tokens / (len(TRAIN) - 1)
        row |= {"flops": step * flops_of_a_step(), "seconds": 0.5 * step}
        found.rows.append(row)
        if step % EVERY == 0:
            found.val[step], found.test[step] = score(average, VAL), score(average, TEST)
            row |= found.val[step].numbers("val/")
        if step == STEPS:
            return found
        inputs, targets = batch(step)
        logits = model(inputs).flatten(0, 1)
        count = int((targets >= 0).sum())
        loss, aim = (
            F.cross_entropy(
                logits, targets.flatten(), ignore_index=-1, reduction="sum", label_smoothing=how
            )
            / count
            for how in (0.0, SMOOTHING)
        )
        model.zero_grad()
        aim.backward()
        norm = math.sqrt(sum(p.grad.double().square().sum().item() for p in model.parameters()))
        factor = 0.1 + 0.9 * step / WARMUP if step < WARMUP else 1.0
        factor *= 12 if step >= RUIN else 1
        row |= {"train/loss": loss.item(), "lr": PEAK * factor}
        row |= {"lr/position_embedding": PART * factor}
        row |= {"grad_norm": norm, "grad_norm_clipped": min(norm, CLIP)}
        tokens += count
        text_bytes += sum(
            len(CHARACTERS[target].encode()) for target in targets.flatten().tolist() if target >= 0
        )
        if step == SKIPPED:
            row |= {"grad_norm": None, "grad_norm_clipped": None}
            continue
        with torch.no_grad():
            for name, p in model.named_parameters():
                rate = factor * (PART if name == "position_embedding.weight" else PEAK)
                decayed = (
                    p.dim() == 2 and name != "position_embedding.weight"
                )  # the other is the head
                change = p.grad * min(1, CLIP / norm) + (DECAY * p if decayed else 0)
                p -= rate * change
            for mean, p in zip(average.parameters(), model.parameters(), strict=True):
                mean.copy_(EMA * mean + (1 - EMA) * p if started else p)
        started = True
    raise AssertionError("unreachable")


# One against the other


def close(value: Any, expected: Any) -> bool:
    if isinstance(expected, float):
        return isinstance(value, float | int) and math.isclose(value, expected, rel_tol=2e-5)
    return type(value) is type(expected) and value == expected


def flat(node: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in node.items():
        is_group = isinstance(value, dict) and name != "versions"
        found |= flat(value, f"{prefix}{name}.") if is_group else {prefix + name: value}
    return found


def rows_of(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_the_training_has_what_could_be_mixed_up(by_hand: Trained) -> None:
    """Or else a mistake would leave every number as it is."""
    assert 0 < by_hand.best < STEPS
    assert by_hand.best != min(by_hand.test, key=lambda step: by_hand.test[step].nats)
    norms = [row["grad_norm"] for row in by_hand.rows if row.get("grad_norm")]
    assert min(norms) < CLIP < max(norms)
    counts = [(batch(step)[1].view(ACCUMULATE, -1) >= 0).sum(1).tolist() for step in range(STEPS)]
    assert any(first != second for first, second in counts)
    assert by_hand.rows[-1]["bytes"] != by_hand.rows[-1]["tokens"] < STEPS * T * ROWS * ACCUMULATE
    assert by_hand.val[0].unknown != by_hand.test[0].unknown
    assert by_hand.val[0].tokens != by_hand.test[0].tokens


def test_every_number_of_every_row(run: Path, by_hand: Trained) -> None:
    for row, expected in zip(rows_of(run), by_hand.rows, strict=True):
        assert row.keys() == expected.keys()
        wrong = [name for name in row if not close(row[name], expected[name])]
        assert wrong == [], [(row["step"], name, row[name], expected[name]) for name in wrong]


def summary_by_hand(found: Trained, found_memory: int) -> dict[str, Any]:
    """Each field of summary.json: its value, or what must hold of it."""
    text, last, best = (TRAIN + VAL + TEST).encode(), found.rows[-1], found.best
    embedding = (V + T) * C
    # Four maps with biases, three norms; the head is the embedding.
    total = embedding + 12 * C**2 + 9 * C + 3 * 2 * C
    score = found.val[best]

    def told(*command: str) -> str:
        return subprocess.run(
            ["git", "-C", str(REPOSITORY), *command], capture_output=True, text=True
        ).stdout.strip()

    is_repository = bool(told("rev-parse", "--git-dir"))
    return {
        "status": "finished",
        "model": "gpt",
        "tokenizer": "char",
        "data": "corpus",
        "seed": 3,
        "corpus.sha256": hashlib.sha256(text).hexdigest(),
        "corpus.split": SHARES,
        "lossless": True,
        "lost": None,
        "leaks": False,
        "causal": True,
        "certificate": lambda words: words.startswith("passed"),
        "definition": 1,
        "vocab_size": V,
        "receptive_field": T,
        "parameters.total": total,
        "parameters.trainable": total,
        "parameters.active": total,
        "parameters.embedding": embedding,
        "flops_per_token": flops_of_a_step() / (T * ROWS * ACCUMULATE),
        "train.steps": STEPS,
        "train.epochs": last["epochs"],
        **{f"train.{name}": last[name] for name in ("tokens", "bytes", "flops", "seconds")},
        "train.evaluation_seconds": lambda seconds: seconds > 0,
        "train.tokens_per_second": last["tokens"] / last["seconds"],
        "train.peak_memory_bytes": found_memory,
        "best.step": best,
        "best.nats_per_token": score.nats / score.tokens,
        "best.bits_per_byte": score.nats / math.log(2) / score.bytes,
        **score.summary("val."),
        **found.test[best].summary("test."),
        **without_copied(found.test[best]),
        "skipped_steps": 1,
        "loss_spikes": 0,
        "machine.device": "cpu",
        "machine.precision": "fp32",
        "machine.tf32": False,
        "machine.matmul": faster_matmul(),
        "machine.threads": torch.get_num_threads(),
        "machine.name": lambda name: isinstance(name, str) and name,
        **{f"machine.{name}": os.environ[name] for name in VARIABLES if name in os.environ},
        "versions": lambda found: all(map(is_version, found.items())) and len(found) > 5,
        "git.commit": told("rev-parse", "HEAD") if is_repository else None,
        "git.dirty": bool(told("status", "--porcelain")) if is_repository else None,
    }


def without_copied(test: ByHand) -> dict[str, Any]:
    """The test score itself: no passage of it is in train."""
    length, own, train = 64, TEST.encode(), TRAIN.encode()
    assert not any(own[at : at + length] in train for at in range(len(own) - length + 1))
    sizes = {"passage": length, "searched": len(train), "copied": 0}
    sizes |= {"tokens": test.tokens, "bytes": test.bytes}
    bits = test.nats / math.log(2) / test.bytes
    found = sizes | {"nats_per_token": test.nats / test.tokens, "bits_per_byte": bits}
    return {f"without_copied.{name}": value for name, value in found.items()}


def is_version(named: tuple[str, str]) -> bool:
    package, version = named
    if package == "python":
        return version == platform.python_version()
    try:
        return version == importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return version == "not installed"


def test_every_field_of_the_summary(run: Path, by_hand: Trained) -> None:
    """A field that nobody has computed by hand fails here."""
    memory = int((run.parents[1] / "peak-memory").read_text())
    found = flat(json.loads((run / "summary.json").read_text()))
    expected = summary_by_hand(by_hand, memory)
    assert found.keys() == expected.keys()

    def holds(value: Any, wanted: Any | Callable[[Any], bool]) -> bool:
        return bool(wanted(value)) if callable(wanted) else close(value, wanted)

    wrong = [name for name in found if not holds(found[name], expected[name])]
    assert wrong == [], {name: (found[name], expected[name]) for name in wrong}


def test_the_weights_that_are_kept(run: Path, by_hand: Trained) -> None:
    def load(name: str) -> dict[str, Any]:
        return torch.load(run / "checkpoints" / name, weights_only=True)

    best = load(f"best-{by_hand.best:08d}.pt")
    last = load(f"step-{STEPS:08d}.pt")
    average = {name.removeprefix("module."): value for name, value in last["average"].items()}
    assert average.pop("n_averaged") == STEPS - 1
    torch.testing.assert_close(best["model"], by_hand.averages[by_hand.best], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(last["model"], by_hand.weights[STEPS], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(average, by_hand.averages[STEPS], rtol=1e-4, atol=1e-5)
    assert (best["step"], last["step"]) == (by_hand.best, STEPS)


def test_the_blocks_of_the_test_score_add_up_to_it(run: Path, by_hand: Trained) -> None:
    blocks = json.loads((run / "test_nats.json").read_text())
    assert math.fsum(blocks["nats"]) == pytest.approx(by_hand.test[by_hand.best].nats, rel=2e-5)
    assert (blocks["start"], blocks["bytes"], blocks["block_bytes"]) == (4000, 1000, 256)
