"""Time and memory of a training step as the context and the width grow, beside counted FLOPs."""

from __future__ import annotations

import csv
import io
import multiprocessing
import statistics
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import torch
from rich.table import Table

from harness.cli.hydra_app import compose
from harness.common.console import Console
from harness.common.errors import RunFailure, UsageError
from harness.common.files import write_atomically
from harness.compute.costs import parameters
from harness.compute.memory import PeakMemory
from harness.config.settings import read_settings
from harness.diagnostics.bench import BareStep, builder
from harness.diagnostics.probe import checked_compute
from harness.report.drawing.scaling import write_scaling
from harness.training.flops import flops_per_step
from harness.training.run import load_dataset

OPTION = "--scaling"
MODELS = "gpt,wavenet,lstm,mamba2,gated_deltanet"
TOKENS = 2048  # of a step
CONTEXTS = (64, 128, 256, 512, 1024)
WIDTHS = (1, 2, 4)  # factors on a model's own
WIDTH_SETTINGS = ("n_embd", "n_hidden", "channels_residual", "channels_gate", "channels_skip")
WIDE_AT = 64  # tokens of context at which the width grows
WARM_UP, STEPS = 2, 5
CHOSEN = ("train.seq_len", "train.batch_size", "train.accumulate")  # by the plan


@dataclass(frozen=True)
class ScalingPoint:
    """axis: context or width. value: tokens, or a factor on the model's own widths. batch_size:
    sequences of a step. flops, seconds: of a step, the seconds the median of some. memory: bytes
    beyond what the process had before."""

    model: str
    axis: str
    value: int
    batch_size: int
    seq_len: int
    parameters: int
    flops: float
    seconds: float
    memory: int

    @property
    def rate(self) -> float:
        """GFLOP/s."""
        return self.flops / self.seconds / 1e9


def scaling() -> int:
    """Print the points on stdout, and write them as CSV and as a picture."""
    words = sys.argv[1:]
    at = next(n for n, word in enumerate(words) if word.partition("=")[0] == OPTION)
    _, equals, out = words.pop(at).partition("=")
    if not equals and at < len(words):
        out = words.pop(at)
    path = Path(out)
    if path.suffix != ".csv":
        raise UsageError(f"{OPTION} takes the file for its figures: {OPTION} scaling.csv")
    for word in words:
        if (key := word.partition("=")[0]) in CHOSEN:
            raise UsageError(f"{OPTION} chooses {key}: leave it out")
    named = [word for word in words if word.partition("=")[0] == "model"] or [f"model={MODELS}"]
    models = named[-1].partition("=")[2].split(",")
    rest = [word for word in words if word not in named]
    # All is composed, and with it checked, before the first is measured.
    plan = [(model, *place) for model in models for place in places(model, rest)]
    points: list[ScalingPoint] = []
    for point in measured(plan):  # what was measured is kept, if the next has no memory
        points.append(point)
        write_csv(path, points)
    write_scaling(path.with_suffix(".png"), points)
    _show(points)
    print(f"{path} and {path.with_suffix('.png')} written", file=sys.stderr)
    return 0


def places(model: str, words: Sequence[str]) -> Iterator[tuple[str, int, list[str]]]:
    """Axis, value and settings of each point of a model."""
    base = [f"model={model}", *words]
    own = read_settings(compose(base)).model
    for context in CONTEXTS:
        yield "context", context, [*base, *_batch(context)]
    widths = {name: own[name] for name in WIDTH_SETTINGS if isinstance(own.get(name), int)}
    for factor in WIDTHS if widths else ():
        wider = [f"model.{name}={width * factor}" for name, width in widths.items()]
        yield "width", factor, [*base, *wider, *_batch(WIDE_AT)]


def _batch(context: int) -> list[str]:
    return [f"train.seq_len={context}", f"train.batch_size={max(1, TOKENS // context)}"]


def measured(plan: Sequence[tuple[str, str, int, list[str]]]) -> Iterator[ScalingPoint]:
    """Each in a process of its own, whose memory is that of this point alone."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    with ProcessPoolExecutor(1, context, max_tasks_per_child=1) as pool:
        for number, (model, axis, value, words) in enumerate(plan, 1):
            if sys.stderr.isatty():
                print(
                    f"\r\033[K{number} of {len(plan)}: {model}, {axis} {value}",
                    end="\n" if number == len(plan) else "", file=sys.stderr, flush=True,
                )  # fmt: skip
            try:
                yield pool.submit(measure, model, axis, value, words).result()
            except BrokenProcessPool as error:
                raise RunFailure(
                    f"the process that measured {model} at {axis} {value} was killed: no memory?"
                ) from error


def measure(model: str, axis: str, value: int, words: list[str]) -> ScalingPoint:
    """Train a few bare steps: forward, backward, optimizer."""
    settings = read_settings(compose(words))
    compute = checked_compute(settings)
    dataset = load_dataset(settings)
    if dataset.row_documents is not None:
        raise UsageError(f"data={settings.names.data}: the length of its rows is not the context")
    build = builder(settings, dataset.tokenizer.vocab_size)
    memory = PeakMemory(compute.device)
    before = memory.read()
    torch.manual_seed(settings.seed)
    network = build().to(compute.device)
    bare = BareStep(settings, dataset, compute, network)
    for _ in range(WARM_UP + STEPS):
        bare()
    used = memory.read() - before  # before FLOPs are counted, which may build another one
    plan = settings.train
    return ScalingPoint(
        model, axis, value, plan.batch_size * plan.accumulate, plan.seq_len,
        parameters(network)["total"], flops_per_step(settings, dataset, network),
        statistics.median(bare.seconds[WARM_UP:]), used,
    )  # fmt: skip


def write_csv(path: Path, points: Sequence[ScalingPoint]) -> None:
    """A row for each point."""
    text = io.StringIO()
    rows = csv.DictWriter(text, [field.name for field in fields(ScalingPoint)], lineterminator="\n")
    rows.writeheader()
    rows.writerows(map(asdict, points))
    write_atomically(path, text.getvalue().encode())


def _show(points: Sequence[ScalingPoint]) -> None:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for header in ("model", "axis"):
        table.add_column(header)
    for header in ("value", "parameters", "ms a step", "GFLOP a step", "GFLOP/s", "memory, MB"):
        table.add_column(header, justify="right")
    for point in points:
        table.add_row(
            point.model, point.axis, f"{point.value:,}", f"{point.parameters:,}",
            f"{1e3 * point.seconds:.1f}", f"{point.flops / 1e9:.2f}", f"{point.rate:.1f}",
            f"{point.memory / 1e6:,.0f}",
        )  # fmt: skip
    width = None if sys.stdout.isatty() else 120
    Console(file=sys.stdout, highlight=False, width=width).print(table)
    print(f"{TOKENS:,} tokens a step. The width grows at a context of {WIDE_AT} tokens.")
