"""Examine a machine: every model in every precision against float64, then what it is good for."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import Any

from rich.table import Table

from harness.cli.hydra_app import compose
from harness.common.console import Console
from harness.common.errors import UsageError
from harness.common.paths import CONF
from harness.common.rows import strict_json
from harness.compute.compiler import require_compiler
from harness.compute.device import Compute, make_deterministic
from harness.compute.memory import total_memory
from harness.compute.meta import meta_model
from harness.compute.precision import require_precision
from harness.config.settings import Settings, read_settings
from harness.diagnostics.doctor import machine
from harness.diagnostics.doctor.operators import FACTOR, OperatorCheck
from harness.diagnostics.doctor.trainings import (
    Deviation,
    Trained,
    deviation,
    reference,
    train_on,
)
from harness.runs.device_record import RIGHT, enter, trial_key
from harness.runs.folder import versions
from harness.training.checks import check_settings
from harness.training.guards import NonFiniteError

SEQ_LEN = 32
LIMITS = {"a minute": 60.0, "ten minutes": 600.0, "an hour": 3600.0}


@dataclass(frozen=True)
class Plan:
    """What is tried. models: files of conf/model; empty for all."""

    models: Sequence[str]
    device: str
    precisions: Sequence[str]
    batch_sizes: Sequence[int]
    compiled: Sequence[bool]


@dataclass(frozen=True)
class Examined:
    """Of one model, precision and batch size. wrong: what differs by more than rounding. skipped:
    why it was not tried. parted: by how much a first training was off, which began right and
    parted later; `found` is then of a second one, from other weights."""

    model: str
    precision: str
    compiled: bool
    batch_size: int
    found: Deviation | None = None
    operators: int = 0
    unchecked: int = 0
    wrong: tuple[str, ...] = ()
    skipped: str | None = None
    parted: float | None = None

    @property
    def outcome(self) -> str:
        if self.skipped:
            return self.skipped
        once = "" if self.parted is None else " (1 of 2 parted)"
        return f"{'✗' if self.wrong else '✓'}{once}"


def examine(plan: Plan, as_json: bool) -> int:
    """Print what is found; returns 1 if anything is wrong. The result is kept for certificates."""
    make_deterministic(any(plan.compiled))
    compute = Compute.choose(plan.device, "fp32")
    console = Console(file=sys.stdout, highlight=False, width=None if sys.stdout.isatty() else 140)
    results: list[Examined] = []
    for model in plan.models or trained_models():
        for result in results_of(model, plan, compute):
            results.append(result)
            print(_line(result), file=sys.stderr)
    kept = enter(compute, date.today().isoformat(), _by_trial(results))
    wrong = [result for result in results if result.wrong]
    good = None if plan.models else _good_for(compute, results)
    if as_json:
        print(strict_json(_plain(compute, results, good)))
        return int(bool(wrong))
    known = ", ".join(f"{name} {versions()[name]}" for name in ("python", "torch", "numpy"))
    memory = f"{total_memory(compute.device) / 1e9:,.1f} GB"
    print(f"{compute.describe()['name']} ({compute.device.type}), {memory}, {known}")
    console.print(_table(results))
    print(f"Errors are in units of what rounding explains; up to {FACTOR:g} is right.")
    for result in results:
        if result.parted is not None:
            print(
                f"! {_name(result)}: one of two trainings began right and parted later (steps "
                f"{result.parted:,.1f}), as a close decision may do by rounding alone"
            )
        for words in result.wrong:
            print(f"✗ {_name(result)}: {words}")
    if not wrong:
        print("✓ all that was tried is right: what differs from float64 is rounding")
    for line in good["words"] if good else ():
        print(line)
    print(f"kept in {kept}" if kept else "not kept: there is no place for it", file=sys.stderr)
    return int(bool(wrong))


def trained_models() -> list[str]:
    """The files of conf/model whose models take steps."""
    names = sorted(path.stem for path in (CONF / "model").glob("*.yaml"))
    return [name for name in names if meta_model(_settings(name, 1)).fit is None]


def results_of(model: str, plan: Plan, compute: Compute) -> Iterator[Examined]:
    """Every trial of a model. Raises UsageError if there is no such model, or it takes no steps."""
    for batch_size in plan.batch_sizes:
        settings = _settings(model, batch_size)
        check_settings(settings)
        if meta_model(settings).fit is not None:
            raise UsageError(f"{model} counts: it has no training step to compare")
        exact = reference(settings)
        for precision in plan.precisions:
            own, rounded = replace(compute, precision=precision), None
            for compiled in plan.compiled:
                chosen = settings.replace(
                    precision=precision, compile=compiled, device=str(compute.device)
                )
                result = Examined(model, precision, compiled, batch_size)
                try:
                    require_precision(chosen, own)
                    require_compiler(chosen, own)
                except UsageError as error:
                    yield replace(result, skipped=str(error))
                    continue
                rounded = rounded or reference(settings, precision)
                tried = _trial(result, chosen, own, exact, rounded)
                if tried.found is not None and tried.found.is_late:
                    # A close decision (which expert, where a chunk ends) may fall otherwise by
                    # rounding alone. An update that is wrong is so from other weights, too; for
                    # what is wrong at times only, it is said.
                    other = {"seed": settings.seed + 1}
                    again = settings.replace(**other)
                    exact_again, rounded_again = reference(again), reference(again, precision)
                    parted = replace(result, parted=tried.found.steps)
                    tried = _trial(parted, chosen.replace(**other), own, exact_again, rounded_again)
                yield tried


def _trial(
    result: Examined, settings: Settings, compute: Compute, exact: Trained, rounded: Trained
) -> Examined:
    check = OperatorCheck()
    try:
        own = train_on(settings, compute) if result.compiled else train_on(settings, compute, check)
    except NonFiniteError as error:
        return replace(result, wrong=(*map(str, check.wrong), str(error)))
    found = deviation(own, exact, rounded, result.precision)
    wrong = [str(operator) for operator in check.wrong]
    if not found.is_rounding:
        worst = (
            f"loss {found.loss:,.1f}, gradients {found.gradients:,.1f}, steps {found.steps:,.1f}"
        )
        wrong.append(f"the training is off ({worst}), most in the gradient of {found.parameter}")
    return replace(
        result, found=found, wrong=tuple(wrong), operators=check.checked,
        unchecked=len(check.unchecked),
    )  # fmt: skip


def _settings(model: str, batch_size: int) -> Settings:
    return read_settings(
        compose([
            f"model={model}", f"train.seq_len={SEQ_LEN}", f"train.batch_size={batch_size}",
            "train.clip=null", "train.steps=20",
            "tokenizer=bytes",  # which every model can read
        ])
    )  # fmt: skip


def _by_trial(results: Iterable[Examined]) -> dict[str, str]:
    """What is kept of each model and precision: right only if it is for all batch sizes."""
    found: dict[str, str] = {}
    for result in results:
        if result.skipped is None:
            key = trial_key(result.model, result.precision, result.compiled)
            if found.get(key, RIGHT) == RIGHT:
                found[key] = result.wrong[0] if result.wrong else RIGHT
    return found


def _good_for(compute: Compute, results: Sequence[Examined]) -> dict[str, Any]:
    """The rates of products, the precision to choose, and how long the zoo's models take in it."""
    tried = list(dict.fromkeys(result.precision for result in results))
    rates = {name: machine.product_rate(replace(compute, precision=name)) for name in tried}
    wrong = {result.precision for result in results if result.wrong}
    usable = {name: rate for name, rate in rates.items() if rate and name not in wrong}
    best = max(
        usable, key=lambda name: usable[name] * (1.0 if name == "fp32" else 0.67), default=None
    )
    shown = ", ".join(
        f"{name} {rate / 1e9:,.0f} GFLOP/s" if rate else f"{name} none"
        for name, rate in rates.items()
    )
    lines = [f"products of large matrices: {shown}"]
    if line := machine.busy():
        lines.append(f"! {line}")
    if best is None:
        return {"words": [*lines, "no precision is right here"], "rates": rates, "seconds": {}}
    why = (
        "the fastest that is right"
        if best != "fp32"
        else "no other is right and half as fast again"
    )
    lines.append(f"precision to choose: {best} ({why})")
    own = replace(compute, precision=best)
    seconds = {}
    for name in trained_models():
        settings = read_settings(compose([f"model={name}", f"device={compute.device}"]))
        found, how = machine.training_seconds(settings.replace(precision=best), own, usable[best])
        seconds[name] = (found, how)
    plan = settings.train
    lines.append(
        f"{plan.budget[1]:,} steps of {plan.batch_size} × {plan.seq_len} tokens, the default:"
    )
    left = {name: found for name, (found, _) in seconds.items() if found is not None}
    for words, limit in LIMITS.items():
        within = [name for name, found in left.items() if found <= limit]
        lines.append(f"  within {words}: {', '.join(within) or 'none'}")
        left = {name: found for name, found in left.items() if name not in within}
    lines.append(f"  longer: {', '.join(left) or 'none'}")
    if too_large := [name for name, (found, _) in seconds.items() if found is None]:
        lines.append(f"  too large for the memory: {', '.join(too_large)}")
    return {"words": lines, "rates": rates, "precision": best, "seconds": seconds}


def _name(result: Examined) -> str:
    return (
        f"{trial_key(result.model, result.precision, result.compiled)}, batch {result.batch_size}"
    )


def _line(result: Examined) -> str:
    return f"{_name(result)}: {result.outcome}"


def _table(results: Sequence[Examined]) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("model")
    table.add_column("precision")
    for header in ("batch", "loss", "gradients", "20 steps", "operators", "without a second way"):
        table.add_column(header, justify="right")
    table.add_column("")
    for result in results:
        found = result.found
        ratios = (found.loss, found.gradients, found.steps) if found else ()
        numbers = [f"{ratio:.2f}" for ratio in ratios] or ["–"] * 3
        table.add_row(
            result.model, f"{result.precision}{', compiled' * result.compiled}",
            str(result.batch_size), *numbers, str(result.operators), str(result.unchecked),
            result.outcome,
        )  # fmt: skip
    return table


def _plain(
    compute: Compute, results: Sequence[Examined], good: dict[str, Any] | None
) -> dict[str, Any]:
    return {
        "machine": compute.describe(),
        "versions": versions(),
        "results": [
            {
                "model": result.model,
                "precision": result.precision,
                "compiled": result.compiled,
                "batch_size": result.batch_size,
                **(vars(result.found) if result.found else {}),
                "operators": result.operators,
                "wrong": list(result.wrong),
                "skipped": result.skipped,
                "parted": result.parted,
            }
            for result in results
        ],
        **({"good_for": good} if good else {}),
    }
