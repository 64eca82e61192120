"""What a training costs: its speed, its memory, and what the harness adds to it."""

from __future__ import annotations

import dataclasses
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
import torch.nn.functional as F
from omegaconf import OmegaConf
from rich.console import Console
from rich.table import Table

from harness.cli.hydra_app import compose
from harness.common.interrupt import Interrupt
from harness.common.paths import CONF
from harness.common.rows import Row
from harness.compute.costs import parameters, step_flops
from harness.compute.device import Compute, make_deterministic
from harness.compute.precision import require_precision
from harness.config.settings import CURRENCIES, ObserveSettings, Settings, read_settings
from harness.data.batches import draw_batch
from harness.data.dataset import Dataset
from harness.evaluation.score import score_split
from harness.loggers.base import Logger
from harness.loggers.local import Local
from harness.observe.watch import Watch
from harness.runs import checkpoint
from harness.runs.folder import RunFolder
from harness.runs.summary import Summary
from harness.sampling.decode import SamplingParams, generate
from harness.training.checks import check_settings
from harness.training.loop import train
from harness.training.optim import build_optimizer
from harness.training.run import load_dataset
from zoo.language_model import LanguageModel

WARM_UP = 10  # steps not counted
STEPS = 100
PAIRS = 300  # of a step of the loop and a bare one: single pairs differ by several per cent
SAVES = 5
SAMPLED = 200  # tokens
LISTED_VOCABULARY = 65  # that of tiny_shakespeare


def bench(settings: Settings) -> int:
    """Measure, and print a table on stdout."""
    table = Table(box=None, show_header=False)
    table.add_column(style="bold")
    table.add_column(justify="right")
    for name, value in measure(settings).items():
        table.add_row(name, value)
    Console(file=sys.stdout, highlight=False).print(table)
    return 0


def measure(settings: Settings) -> dict[str, str]:
    """What a training of these settings costs, by name, with units."""
    make_deterministic()
    compute = Compute.choose(settings.device, settings.precision, settings.tf32)
    check_settings(settings)
    require_precision(settings, compute)
    dataset = load_dataset(settings)

    def build() -> LanguageModel:
        return settings.build("model", LanguageModel, vocab_size=dataset.tokenizer.vocab_size)

    peak_memory, _ = _train(settings, dataset, compute, lambda: None)
    torch.manual_seed(settings.seed)
    model = build().to(compute.device)
    bare = _BareStep(settings, dataset, model)
    _, harness = _train(settings, dataset, compute, bare, WARM_UP + PAIRS)
    plan = settings.train
    rows, targets = plan.batch_size * plan.accumulate, len(range(plan.seq_len)[plan.trained])
    tokens = rows * targets
    flops = step_flops(build, plan.seq_len, plan.trained) / targets
    step = statistics.median(harness)
    speed, rate = tokens / step, flops * tokens / step / 1e9
    ratios = [one / other for one, other in zip(harness, bare.seconds[WARM_UP:], strict=True)]
    result = {
        "machine": ", ".join(f"{name} {value}" for name, value in compute.describe().items()),
        "parameters": f"{parameters(model)['total']:,}",
        "training FLOPs": f"{flops:,.0f} per token",
        "training step": f"{1e3 * step:.2f} ms for {tokens} tokens",
        "training speed": f"{speed:,.0f} tokens/s, {rate:,.1f} GFLOP/s",
        "peak memory": f"{peak_memory / 1e6:,.0f} MB",
        "harness / bare step": _quartiles(ratios),
        "checkpoint": _checkpoint(settings, bare),
    }
    if dataset.val is not None:
        started = perf_counter()
        stride, windows = settings.eval.stride, settings.eval.batch_size
        score = score_split(model, dataset.val, dataset.tokenizer, compute, stride, windows)
        took = perf_counter() - started
        result["validation split"] = f"{took:.2f} s for {score.tokens:,} tokens"
    result |= _watching(settings, dataset, compute, model)
    return result | _sampling(model, compute)


def _train(
    settings: Settings,
    dataset: Dataset,
    compute: Compute,
    between: Callable[[], None],
    steps: int = WARM_UP + STEPS,
    others: Sequence[Logger] = (),
) -> tuple[int, list[float]]:
    """The real loop for a few steps, `between` called after each; `others`: loggers beside the
    local one.

    Returns the peak memory in bytes, and the seconds of each step after the warm-up, from the end
    of one `between` to the start of the next.
    """

    settings = settings.replace(
        train=settings.train.replace(**dict.fromkeys(CURRENCIES) | {"steps": steps}),
        schedule={"_target_": "harness.training.schedules.Constant"},
        eval=settings.eval.replace(sample_tokens=0),
    )
    dataset = dataclasses.replace(dataset, val=None, test=None)
    seconds: list[float] = []
    started = 0.0

    def on_step(row: Row) -> None:
        nonlocal started
        if "train/loss" in row:
            compute.synchronize()
            seconds.append(perf_counter() - started)
            between()
            started = perf_counter()

    summary = Summary(status="running")
    with tempfile.TemporaryDirectory() as temporary:
        folder = RunFolder(Path(temporary) / "run")
        folder.create(settings.dump())
        loggers = [Local(), *others]
        started = perf_counter()
        train(
            settings, dataset, compute, folder, loggers, summary, Interrupt(), lambda line: None,
            on_step,
        )  # fmt: skip
        for logger in loggers:
            logger.close(summary.plain() | {"status": "stopped"})
    assert summary.train is not None, "the loop records what it took"
    return int(summary.train.peak_memory_bytes or 0), seconds[WARM_UP:]


class _BareStep:
    """Forward, backward and optimizer step on one fixed batch, and nothing else; timed."""

    def __init__(self, settings: Settings, dataset: Dataset, model: LanguageModel) -> None:

        plan = settings.train
        rows = plan.batch_size * plan.accumulate
        batch = draw_batch(dataset.train.ids, settings.seed, 0, rows, plan.seq_len)
        self._compute = Compute.choose(settings.device, settings.precision, settings.tf32)
        self._micro_batches = [
            tuple(part.to(self._compute.device) for part in micro)
            for micro in zip(*(part.split(plan.batch_size) for part in batch), strict=True)
        ]
        self._model = model.train()
        self._trained = plan.trained
        self._forward = torch.compile(model) if settings.compile else model
        self._optimizer = build_optimizer(settings, model)
        self.seconds: list[float] = []

    def __call__(self) -> None:
        started = perf_counter()
        self._step()
        # Its activations are given back by now, as those of a loop's step are by the next.
        self._compute.synchronize()
        self.seconds.append(perf_counter() - started)

    def _step(self) -> None:
        for inputs_BT, targets_BT in self._micro_batches:
            with self._compute.autocast():
                features_BTC = self._forward(inputs_BT, return_features=True)[:, self._trained]
                logits_BTV = self._model.head(features_BTC)
            F.cross_entropy(
                logits_BTV.flatten(0, 1).float(), targets_BT[:, self._trained].flatten()
            ).backward()
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)

    def state(self) -> dict[str, Any]:
        """What a checkpoint of it holds, but for a few numbers."""
        return {"model": self._model.state_dict(), "optimizer": self._optimizer.state_dict()}


def _checkpoint(settings: Settings, bare: _BareStep) -> str:
    """What saves take of the time of training; each is measured right after a step."""
    seconds: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        for step in range(SAVES):
            bare()
            started = perf_counter()
            path = checkpoint.save(Path(folder), "step", step, bare.state(), keep=[step - 1])
            seconds.append(perf_counter() - started)
        size = path.stat().st_size
    save, every = statistics.median(seconds), settings.checkpoint.every
    share = save / (every * statistics.median(bare.seconds[-SAVES:]))
    return f"{save:.3f} s for {size / 1e6:,.1f} MB; every {every} steps: {share:.2%} of the time"


def checkpoint_cost() -> int:
    """The table's line on checkpoints alone, for models whose steps take seconds."""
    overrides = [argument for argument in sys.argv[1:] if argument != "--checkpoint"]
    settings = read_settings(compose(overrides))
    check_settings(settings)
    dataset = load_dataset(settings)
    torch.manual_seed(settings.seed)
    model = settings.build("model", LanguageModel, vocab_size=dataset.tokenizer.vocab_size)
    bare = _BareStep(settings, dataset, model)
    bare()
    print(_checkpoint(settings, bare))
    return 0


def _watching(
    settings: Settings, dataset: Dataset, compute: Compute, model: LanguageModel
) -> dict[str, str]:
    """What each way of observing adds to the training, as a share of it: of steps that are watched
    by turns, and of evaluations that are."""
    result = {}
    for name in ("basic", "full"):
        every = int(OmegaConf.load(CONF / "observe" / f"{name}.yaml").every)
        observe = ObserveSettings(every=2, full=name == "full")
        by_turns = settings.replace(observe=observe)
        _, seconds = _train(by_turns, dataset, compute, lambda: None)
        plain = seconds[1::2]
        look = statistics.median(
            watched / other - 1 for watched, other in zip(seconds[::2], plain, strict=True)
        )
        share, line = look / every, f"a look every {every} steps takes as long as {look:.2f} steps"
        if by_turns.observe.full and dataset.val is not None:
            extra = _watched_evaluation(by_turns, dataset, compute, model)
            share += extra / (settings.eval.every * statistics.median(plain))
            line += f"; {extra:.2f} s more every evaluation"
        result[f"observe={name}"] = f"{share:.1%} more ({line})"
    return result


def _watched_evaluation(
    settings: Settings, dataset: Dataset, compute: Compute, model: LanguageModel
) -> float:
    """By how many seconds watching makes an evaluation longer: the median of three pairs."""

    assert dataset.val is not None, "nothing to evaluate on"
    watch = Watch(settings, model, compute)
    stride, windows = settings.eval.stride, settings.eval.batch_size
    extra = []
    for _ in range(3):
        started = perf_counter()
        score_split(model, dataset.val, dataset.tokenizer, compute, stride, windows)
        between = perf_counter()
        with watch.validation(model, dataset.val, {"step": 0}):
            score_split(model, dataset.val, dataset.tokenizer, compute, stride, windows)
        extra.append(perf_counter() - between - (between - started))
    return statistics.median(extra)


def _sampling(model: LanguageModel, compute: Compute) -> dict[str, str]:

    prompt_BT = torch.zeros(1, 1, dtype=torch.int64, device=compute.device)
    started = perf_counter()
    generate(model, prompt_BT, SAMPLED, SamplingParams())
    speed = SAMPLED / (perf_counter() - started)
    cache = model.init_cache(1)
    with torch.inference_mode():
        model(prompt_BT.expand(1, model.block_size or 1), cache)
    size = cache.nbytes
    per_token = f", {size / model.block_size:,.0f} per token" if model.block_size else ""
    return {"sampling": f"{speed:,.0f} tokens/s", "cache": f"{size:,} bytes{per_token}"}


def _quartiles(values: list[float]) -> str:
    low, middle, high = statistics.quantiles(values, n=4)
    return f"{middle:.3f} (half of {len(values)} pairs from {low:.3f} to {high:.3f})"


def list_zoo() -> int:
    """What every file of conf/model/ costs, by counting: no step is run."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("model")
    for header in ("parameters", "FLOPs/token", "receptive field", "cache, bytes", "per token"):
        table.add_column(header, justify="right")
    arguments = [argument for argument in sys.argv[1:] if argument != "--list"]
    for path in sorted((CONF / "model").glob("*.yaml")):
        settings = read_settings(compose([f"model={path.stem}", *arguments]))
        table.add_row(path.stem, *_costs(settings))
    width = None if sys.stdout.isatty() else 120
    Console(file=sys.stdout, highlight=False, width=width).print(table)
    print(
        f"Vocabulary of {LISTED_VOCABULARY}. FLOPs of training. Cache of one sequence in fp32; per "
        "token of the window where there is one, else of fixed size."
    )
    return 0


def _costs(settings: Settings) -> list[str]:

    def build() -> LanguageModel:
        return settings.build("model", LanguageModel, vocab_size=LISTED_VOCABULARY)

    model = build().eval()
    seq_len = settings.train.seq_len
    field, window = model.receptive_field, model.block_size
    cache = model.init_cache(1)
    with torch.no_grad():
        model(torch.zeros(1, window or 1, dtype=torch.int64), cache)
    return [
        f"{parameters(model)['total']:,}",
        f"{step_flops(build, seq_len) / seq_len:,.0f}",
        "unbounded" if field is None else f"{field:,}",
        f"{cache.nbytes:,}",
        f"{cache.nbytes / window:,.0f}" if window else "–",
    ]
