"""A run's settings, typed and checked."""

from __future__ import annotations

import dataclasses
import math
import re
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from harness.common.errors import UsageError
from harness.common.values import fits, require_choice, show
from harness.config import secrets
from harness.config.build import (
    Node,
    T,
    build_object,
    check_object,
    refuse_nested_targets,
    require_trusted_class,
)
from harness.config.keys import mismatch, no_setting, no_value

CURRENCIES = ("steps", "tokens", "bytes", "flops", "seconds")
DEFAULT_STEPS = 2000
POSITIONS = ("all", "last")
INITS = ("default", "kaiming", "xavier", "gpt2", "truncated_normal")
BATCH_NORMS = ("moving", "precise", "frozen", "batch")
ON_NON_FINITE = ("stop", "skip")
PRECISIONS = ("auto", "fp32", "bf16", "fp16")
DEVICES = ("auto", "cpu", "cuda", "mps")


@dataclass
class Names:
    """Which file of each group was chosen: what tables and folders call the run."""

    data: str
    tokenizer: str
    model: str


@dataclass
class TrainSettings:
    """The budget is the one of steps, tokens, bytes, flops and seconds that is given."""

    batch_size: int
    seq_len: int
    accumulate: int
    clip: float | None
    positions: str
    label_smoothing: float
    max_norm: float | None
    ema: float | None
    patience: int | None
    batch_norm: str
    batch_norm_samples: int
    batch_norm_frozen: float
    on_non_finite: str = "stop"
    steps: int | None = None
    tokens: int | None = None
    bytes: int | None = None
    flops: float | None = None
    seconds: float | None = None

    @property
    def trained(self) -> slice:
        """The positions of a sequence that have a loss."""
        return slice(-1, None) if self.positions == "last" else slice(None)

    @property
    def budget(self) -> tuple[str, float]:
        """Its currency and its amount."""
        given = [(name, getattr(self, name)) for name in CURRENCIES]
        return next((name, amount) for name, amount in given if amount is not None)


@dataclass
class EvalSettings:
    every: int
    stride: int | None
    batch_size: int
    sample_tokens: int
    prompt: str


@dataclass
class CheckpointSettings:
    every: int


@dataclass
class ObserveSettings:
    """every: steps between two looks inside; None: never."""

    every: int | None = None
    full: bool = False


@dataclass
class Settings:
    """Everything that decides a run. The nodes with a `_target_` are built by `build_object`."""

    names: Names
    data: Node
    tokenizer: Node
    model: Node
    optimizer: Node
    schedule: Node
    train: TrainSettings
    eval: EvalSettings
    checkpoint: CheckpointSettings
    logger: dict[str, Node]
    seed: int
    device: str
    precision: str
    compile: bool
    resume: bool
    run_dir: str | None
    cache: str
    init: str = "default"
    zero_residual: bool = False
    tf32: bool = False
    observe: ObserveSettings = field(default_factory=ObserveSettings)
    trust: list[str] = field(default_factory=list)
    assets: list[str | None] = field(default_factory=list)

    def build(self, group: str, interface: type[T], **given: Any) -> T:
        """The object a group's node describes; `given` are the arguments the data decide."""
        return build_object(getattr(self, group), interface, group, trust=self.trust, **given)

    def check(self, group: str, interface: type[T], **given: Any) -> None:
        """Raises UsageError if the group's class or the names and types of its arguments are wrong;
        what else is, only `build_object` can tell."""
        check_object(getattr(self, group), interface, group, trust=self.trust, **given)

    def dump(self) -> str:
        """As YAML: with the code's version, all it takes to repeat the run."""
        return OmegaConf.to_yaml(OmegaConf.structured(self))


def read_settings(config: DictConfig | Mapping[str, Any]) -> Settings:
    """Check a composed configuration. Raises UsageError at the first thing that can't be."""
    plain = _resolve(config)
    plain.pop("hydra", None)
    plain.pop("experiment", None)  # an empty group leaves its name behind
    _refuse_extreme_numbers(plain, "")
    secrets.require_none(plain)
    settings = _typed(Settings, plain, "")
    _check_ranges(settings)
    for where, node in _nodes(settings):
        if not isinstance(node.get("_target_"), str):
            raise UsageError(f"{where} names no class: it has no _target_")
        refuse_nested_targets(node, where)
    return settings


def load_settings(path: Path) -> Settings:
    """The settings of a run's config.yaml. What it trusts does not count: only the user says."""
    try:
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(path.read_text())):
            raise ValueError("it holds aliases, ten of which can fill any memory")
        # What a run writes is resolved: a ${oc.env:…} in it is text, or it would read our secrets.
        plain: Any = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
        settings = read_settings(plain)
    except FileNotFoundError as error:
        raise UsageError(f"{path.parent} is not a run's folder: it has no {path.name}") from error
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise UsageError(f"{path} can't be read: {_one_line(error)}") from error
    settings.trust = []
    return settings


def require_trusted(settings: Settings) -> None:
    """Raises UsageError if a node names a class outside the trusted packages. Imports nothing."""
    for where, node in _nodes(settings):
        require_trusted_class(node["_target_"], where, settings.trust)


def _nodes(settings: Settings) -> Iterable[tuple[str, Node]]:
    """All that configuration builds, with its key."""
    for group in ("data", "tokenizer", "model", "optimizer", "schedule"):
        yield group, getattr(settings, group)
    for name, node in settings.logger.items():
        yield f"logger.{name}", node


def _resolve(config: DictConfig | Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(config, Mapping | DictConfig):
        raise UsageError("the configuration holds no settings by name")
    if not isinstance(config, DictConfig):
        return dict(config)
    config = config.copy()
    OmegaConf.set_struct(config, False)
    config.pop("hydra", None)
    try:
        return typing.cast(dict[str, Any], OmegaConf.to_container(config, resolve=True))
    except OmegaConfBaseException as error:
        raise UsageError(_one_line(error)) from error


def _refuse_extreme_numbers(value: Any, key: str) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise UsageError(f"{key}={value} is not a finite number")
    if isinstance(value, int) and abs(value) >= 2**63:
        raise UsageError(f"{key}={show(value)} is too large: whole numbers end at 2^63 - 1")
    if isinstance(value, Mapping):
        for name, inner in value.items():
            _refuse_extreme_numbers(inner, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list):
        for position, inner in enumerate(value):
            _refuse_extreme_numbers(inner, f"{key}[{position}]")


def _typed(kind: type[T], plain: Mapping[Any, Any], prefix: str) -> T:
    """The dataclass `kind` made of plain values, each of the type it declares."""
    hints = typing.get_type_hints(kind)
    for name in plain:
        if name not in hints:
            raise UsageError(no_setting(f"{prefix}{name}"))
    for each in dataclasses.fields(typing.cast(Any, kind)):
        required = each.default is each.default_factory is dataclasses.MISSING
        if required and plain.get(each.name, "???") == "???":
            raise UsageError(no_value(prefix + each.name))
    values: dict[str, Any] = {}
    for name, value in plain.items():
        key, hint = prefix + name, hints[name]
        if value == "???":
            raise UsageError(no_value(key))
        if dataclasses.is_dataclass(hint) and isinstance(value, Mapping):
            values[name] = _typed(typing.cast(type, hint), value, f"{key}.")
            continue
        if dataclasses.is_dataclass(hint) or not fits(value, hint):
            raise UsageError(mismatch(key, value, hint))
        _refuse_missing(value, key)
        values[name] = value
    return kind(**values)


def _refuse_missing(value: Any, key: str) -> None:
    """Values that a file leaves to the user are written ???."""
    if value == "???":
        raise UsageError(no_value(key))
    if isinstance(value, Mapping):
        for name, inner in value.items():
            _refuse_missing(inner, f"{key}.{name}")


def _check_ranges(settings: Settings) -> None:
    def require(holds: bool, key: str, value: object, rule: str) -> None:
        if not holds:
            raise UsageError(f"{key}={show(value)} must be {rule}")

    train, evaluation = settings.train, settings.eval
    for key, number in {
        "train.batch_size": train.batch_size,
        "train.seq_len": train.seq_len,
        "train.accumulate": train.accumulate,
        "eval.every": evaluation.every,
        "eval.batch_size": evaluation.batch_size,
        "checkpoint.every": settings.checkpoint.every,
    }.items():
        require(number >= 1, key, number, "at least 1")
    for name, limits in {"label_smoothing": (0, 1), "ema": (0, 1)}.items():
        value = getattr(train, name)
        holds = value is None or limits[0] <= value < limits[1]
        require(holds, f"train.{name}", value, f"at least {limits[0]} and below {limits[1]}")
    require(
        train.max_norm is None or train.max_norm > 0, "train.max_norm", train.max_norm, "above 0"
    )
    looks = settings.observe.every
    require(looks is None or looks >= 1, "observe.every", looks, "at least 1, or null")
    require(train.patience is None or train.patience >= 1, "train.patience", train.patience, ">= 1")
    for key, word, words in (
        ("train.positions", train.positions, POSITIONS),
        ("train.batch_norm", train.batch_norm, BATCH_NORMS),
        ("train.on_non_finite", train.on_non_finite, ON_NON_FINITE),
    ):
        require_choice(key, word, words)
    share, samples = train.batch_norm_frozen, train.batch_norm_samples
    require(0 < share <= 1, "train.batch_norm_frozen", share, "above 0 and at most 1")
    require(samples >= 2, "train.batch_norm_samples", samples, "at least 2")
    given = [name for name in CURRENCIES if getattr(train, name) is not None]
    if len(given) > 1:
        raise UsageError(
            f"the budget is given twice, by train.{given[0]} and train.{given[1]}: give one"
        )
    if not given:
        train.steps = DEFAULT_STEPS
    currency, total = train.budget
    require(total > 0, f"train.{currency}", total, "above 0")
    require(evaluation.sample_tokens >= 0, "eval.sample_tokens", evaluation.sample_tokens, ">= 0")
    require(train.clip is None or train.clip > 0, "train.clip", train.clip, "above 0, or null")
    require(settings.seed >= 0, "seed", settings.seed, "a whole number from 0 to 2^63 - 1")
    require(
        "local" in settings.logger,
        "logger",
        [*settings.logger],
        "local and others: it is always on",
    )
    require_choice("precision", settings.precision, PRECISIONS)
    require_choice("init", settings.init, INITS)
    require_device("device", settings.device)
    for key, name in vars(settings.names).items():
        # They become the name of a folder, which must not climb out of its own.
        plain = re.fullmatch(r"\w[\w.+-]{0,99}", name)
        require(plain is not None, f"names.{key}", name, "a plain name: letters, digits, . _ + -")


def require_device(key: str, device: str) -> None:
    """Raises UsageError for what names no device: one of DEVICES, or with a number, cuda:1."""
    kind, colon, number = device.partition(":")
    require_choice(key, kind, DEVICES)
    if colon and not (number.isascii() and number.isdigit()):
        raise UsageError(f"{key}={show(device)} should be {kind} or {kind}:0, {kind}:1, …")


def _one_line(error: BaseException) -> str:
    """OmegaConf puts the key on a line of its own; keep the message and the key."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    key = next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("full_key:")), ""
    )
    message = lines[0] if lines else type(error).__name__
    return f"{key}: {message}" if key and key not in message else message
