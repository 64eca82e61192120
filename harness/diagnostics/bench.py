"""What a training costs: its speed, its memory, and what the harness adds to it."""

from __future__ import annotations

import dataclasses
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import perf_counter

import torch
import torch.nn.functional as F
from omegaconf import OmegaConf
from rich.table import Table

from harness.cli.hydra_app import compose
from harness.common.console import Console
from harness.common.paths import CONF
from harness.common.rows import Row
from harness.compute.costs import cache_bytes, parameters, step_flops
from harness.compute.device import Compute
from harness.config.model import build_model
from harness.config.settings import CURRENCIES, ObserveSettings, Settings, read_settings
from harness.data.batches import IGNORED, draw_batch, row_shape
from harness.data.dataset import Dataset
from harness.diagnostics.probe import checked_compute
from harness.evaluation.score import Score, score_split
from harness.loggers.local import Local
from harness.observe.observer import Observer
from harness.runs import checkpoint
from harness.runs.checkpoint import StepCheckpoint
from harness.runs.folder import RunFolder
from harness.runs.summary import Summary
from harness.sampling.decode import SamplingParams, generate
from harness.training.context import RunContext
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
    """What a training with these settings costs, by name, with units."""
    compute = checked_compute(settings)
    dataset = load_dataset(settings)
    build = builder(settings, dataset.tokenizer.vocab_size)
    _say(f"the training loop, {WARM_UP + STEPS} steps")
    peak_memory, _ = timed_loop(settings, dataset, compute)
    torch.manual_seed(settings.seed)
    model = build().to(compute.device)
    bare = BareStep(settings, dataset, compute, model)
    _say(f"{WARM_UP + PAIRS} pairs of its steps and bare ones")
    _, seconds = timed_loop(settings, dataset, compute, bare, WARM_UP + PAIRS)
    plan = settings.train
    time, targets = row_shape(dataset.row_documents, plan.seq_len, plan.trained)
    tokens = round(plan.batch_size * plan.accumulate * targets)
    flops = step_flops(build, time, plan.trained) / targets
    step = statistics.median(seconds)
    speed, rate = tokens / step, flops * tokens / step / 1e9
    ratios = [one / other for one, other in zip(seconds, bare.seconds[WARM_UP:], strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4)
    quartiles = f"half of {len(ratios)} pairs from {low:.3f} to {high:.3f}"
    _say(f"the parts of a step, {STEPS} times")
    parts = bare.parts()
    if settings.data.get("order") == "random":  # others are drawn elsewhere
        parts = {"batch": _batch_seconds(settings, dataset)} | parts
    _say(f"a checkpoint, {SAVES} times")
    result = {
        "machine": ", ".join(f"{name} {value}" for name, value in compute.describe().items()),
        "parameters": parameter_line(model),
        "training FLOPs": f"{flops:,.0f} per token",
        "training step": f"{1e3 * step:.2f} ms for {tokens} tokens",
        "bare step": ", ".join(f"{part} {1e3 * took:.2f}" for part, took in parts.items()) + " ms",
        "training speed": f"{speed:,.0f} tokens/s, {rate:,.1f} GFLOP/s",
        "peak memory": f"{peak_memory / 1e6:,.0f} MB",
        "harness / bare step": f"{middle:.3f} ({quartiles})",
        "checkpoint": _checkpoint_cost(settings, bare),
    }
    if dataset.val is not None:
        _say("the validation split")
        started = perf_counter()
        score = _score_val(settings, dataset, compute, model)
        took = perf_counter() - started
        result["validation split"] = f"{took:.2f} s for {score.tokens:,} tokens"
    return result | _observe_cost(settings, dataset, compute, model) | _sampling(model, compute)


def _batch_seconds(settings: Settings, dataset: Dataset) -> float:
    """Of drawing the sequences of a step."""
    plan, seconds = settings.train, []
    for step in range(STEPS):
        started = perf_counter()
        draw_batch(
            dataset.train.ids, settings.seed, step, plan.batch_size * plan.accumulate,
            plan.seq_len, dataset.row_documents,
        )  # fmt: skip
        seconds.append(perf_counter() - started)
    return statistics.median(seconds)


def _say(what: str) -> None:
    """Progress, where somebody looks."""
    if sys.stderr.isatty():
        print(f"measuring {what} …", file=sys.stderr)


def parameter_line(model: LanguageModel) -> str:
    """Its parameters, and how many of them a token uses if not all."""
    found = parameters(model)
    active = f" ({found['active']:,} active)" if found["active"] != found["total"] else ""
    return f"{found['total']:,}{active}"


def builder(settings: Settings, vocab_size: int) -> Callable[[], LanguageModel]:
    return lambda: build_model(settings, vocab_size)


def timed_loop(
    settings: Settings,
    dataset: Dataset,
    compute: Compute,
    between: Callable[[], None] = lambda: None,
    steps: int = WARM_UP + STEPS,
) -> tuple[int, list[float]]:
    """Run the training loop, with `between` called after each step.

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

    def on_row(row: Row) -> None:
        nonlocal started
        if "train/loss" in row:
            compute.synchronize()
            seconds.append(perf_counter() - started)
            between()
            started = perf_counter()

    summary, logger = Summary(status="running"), Local()
    with tempfile.TemporaryDirectory() as temporary:
        folder = RunFolder(Path(temporary) / "run")
        folder.create(settings.dump())
        started = perf_counter()
        context = RunContext(
            settings, dataset, compute, folder, summary, [logger], on_row=on_row, read_together=1
        )  # a row as soon as its step is done
        train(context)
        logger.close(summary.plain() | {"status": "stopped"})
    assert summary.train is not None, "the loop records what it took"
    return int(summary.train.peak_memory_bytes or 0), seconds[WARM_UP:]


class BareStep:
    """Forward, backward and optimizer step on one fixed batch, and nothing else; timed."""

    def __init__(
        self, settings: Settings, dataset: Dataset, compute: Compute, model: LanguageModel
    ) -> None:
        plan = settings.train
        rows = plan.batch_size * plan.accumulate
        train, documents = dataset.train.ids, dataset.row_documents
        batch = draw_batch(train, settings.seed, 0, rows, plan.seq_len, documents)
        self._micro_batches = [
            tuple(part.to(compute.device) for part in micro)
            for micro in zip(*(part.split(plan.batch_size) for part in batch), strict=True)
        ]
        self._compute, self._model, self._trained = compute, model.train(), plan.trained
        self._forward = torch.compile(model) if settings.compile else model
        self._optimizer = build_optimizer(settings, model)
        self.seconds: list[float] = []

    def __call__(self) -> None:
        started = perf_counter()
        self._step()
        # Its activations are freed by now, as a loop step's are by the next.
        self._compute.synchronize()
        self.seconds.append(perf_counter() - started)

    def parts(self) -> dict[str, float]:
        """The median seconds of what a step consists of, waiting for the device behind each."""
        found: dict[str, list[float]] = {}
        for _ in range(STEPS):
            laps = dict.fromkeys(("forward", "backward", "optimizer"), 0.0)
            at = perf_counter()

            def lap(part: str) -> None:
                nonlocal at
                self._compute.synchronize()
                now = perf_counter()
                laps[part] += now - at  # noqa: B023
                at = now

            self._step(lap)
            for part, seconds in laps.items():
                found.setdefault(part, []).append(seconds)
        return {part: statistics.median(seconds) for part, seconds in found.items()}

    def _step(self, lap: Callable[[str], None] = lambda part: None) -> None:
        for inputs_BT, targets_BT in self._micro_batches:
            with self._compute.autocast():
                features_BTC = self._forward(inputs_BT, return_features=True)[:, self._trained]
                logits_BTV = self._model.head(features_BTC)
            loss = F.cross_entropy(
                logits_BTV.flatten(0, 1).float(),
                targets_BT[:, self._trained].flatten(),
                ignore_index=IGNORED,
            )
            lap("forward")
            loss.backward()
            lap("backward")
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        lap("optimizer")

    def checkpoint(self, step: int) -> StepCheckpoint:
        """As large as a training's: the model's and the optimizer's state."""
        return StepCheckpoint(
            step=step, model=self._model.state_dict(), optimizer=self._optimizer.state_dict(),
            tokenizer="", corpus="", settings={}, scaler={}, progress={}, guard={},
        )  # fmt: skip


def _checkpoint_cost(settings: Settings, bare: BareStep) -> str:
    """The share of training time that saving takes; each save is measured right after a step."""
    seconds: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        for step in range(SAVES):
            bare()
            started = perf_counter()
            path = checkpoint.save(Path(folder), bare.checkpoint(step), keep=[step - 1])
            seconds.append(perf_counter() - started)
        size = path.stat().st_size
    save, every = statistics.median(seconds), settings.checkpoint.every
    share = save / (every * statistics.median(bare.seconds[-SAVES:]))
    return f"{save:.3f} s for {size / 1e6:,.1f} MB; every {every} steps: {share:.2%} of the time"


def checkpoint_cost() -> int:
    """Print what checkpoints cost and nothing else, for models whose steps take seconds."""
    settings = read_settings(compose([word for word in sys.argv[1:] if word != "--checkpoint"]))
    compute = checked_compute(settings)
    dataset = load_dataset(settings)
    torch.manual_seed(settings.seed)
    model = builder(settings, dataset.tokenizer.vocab_size)().to(compute.device)
    bare = BareStep(settings, dataset, compute, model)
    bare()
    print(_checkpoint_cost(settings, bare))
    return 0


def _observe_cost(
    settings: Settings, dataset: Dataset, compute: Compute, model: LanguageModel
) -> dict[str, str]:
    """What each way of observing adds to the training time, from pairs of an observed and an
    unobserved step."""
    result = {}
    for name in ("basic", "full"):
        _say(f"observe={name}")
        every = int(OmegaConf.load(CONF / "observe" / f"{name}.yaml").every)
        alternating = settings.replace(observe=ObserveSettings(every=2, full=name == "full"))
        _, seconds = timed_loop(alternating, dataset, compute)
        pairs = zip(seconds[::2], seconds[1::2], strict=True)
        looks = [observed / plain - 1 for observed, plain in pairs]
        low, look, high = statistics.quantiles(looks, n=4)
        share, line = look / every, f"a look every {every} steps takes as long as {look:.2f} steps"
        line += f", half of {len(looks)} from {low:.2f} to {high:.2f}"
        if alternating.observe.full and dataset.val is not None:
            extra = _observed_evaluation(alternating, dataset, compute, model)
            share += extra / (settings.eval.every * statistics.median(seconds[1::2]))
            line += f"; {extra:.2f} s more every evaluation"
        words = f"{share:.1%} more" if low > 0 else f"{share:.1%}, within the measurement's spread"
        result[f"observe={name}"] = f"{words} ({line})"
    return result


def _observed_evaluation(
    settings: Settings, dataset: Dataset, compute: Compute, model: LanguageModel
) -> float:
    """The seconds that observing adds to an evaluation: the median of three pairs."""
    assert dataset.val is not None, "nothing to evaluate on"
    observer = Observer(settings, model, compute)
    extra = []
    for _ in range(3):
        started = perf_counter()
        _score_val(settings, dataset, compute, model)
        between = perf_counter()
        with observer.validation(model, dataset.val, {"step": 0}):
            _score_val(settings, dataset, compute, model)
        extra.append(perf_counter() - between - (between - started))
    return statistics.median(extra)


def _score_val(
    settings: Settings, dataset: Dataset, compute: Compute, model: LanguageModel
) -> Score:
    assert dataset.val is not None, "nothing to evaluate on"
    stride, batch_size = settings.eval.stride, settings.eval.batch_size
    return score_split(model, dataset.val, dataset.tokenizer, compute, stride, batch_size)


def _sampling(model: LanguageModel, compute: Compute) -> dict[str, str]:
    prompt_BT = torch.zeros(1, 1, dtype=torch.int64, device=compute.device)
    started = perf_counter()
    generate(model, prompt_BT, SAMPLED, SamplingParams())
    speed = SAMPLED / (perf_counter() - started)
    size, window = cache_bytes(model, model.block_size or 1), model.block_size
    per_token = f", {size / window:,.0f} per token" if window else ""
    return {"sampling": f"{speed:,.0f} tokens/s", "cache": f"{size:,} bytes{per_token}"}


def list_zoo() -> int:
    """Print what every model of conf/model/ costs, by counting: no step is run."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("model")
    for header in ("parameters", "FLOPs/token", "receptive field", "cache, bytes", "per token"):
        table.add_column(header, justify="right")
    overrides = [word for word in sys.argv[1:] if word != "--list"]
    for path in sorted((CONF / "model").glob("*.yaml")):
        settings = read_settings(compose([f"model={path.stem}", *overrides]))
        build, seq_len = builder(settings, LISTED_VOCABULARY), settings.train.seq_len
        model = build().eval()
        cache = cache_bytes(model, model.block_size or 1)
        table.add_row(
            path.stem,
            parameter_line(model),
            f"{step_flops(build, seq_len) / seq_len:,.0f}",
            "unbounded" if model.receptive_field is None else f"{model.receptive_field:,}",
            f"{cache:,}",
            f"{cache / model.block_size:,.0f}" if model.block_size else "–",
        )
    width = None if sys.stdout.isatty() else 120
    Console(file=sys.stdout, highlight=False, width=width).print(table)
    print(
        f"Vocabulary of {LISTED_VOCABULARY}. FLOPs of training. Cache of one sequence in fp32; per "
        "token of the window where there is one, else of fixed size."
    )
    return 0
