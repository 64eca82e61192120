"""A run's settings: typed, checked, and turned into objects.

Configuration is data: `build` makes an object only from a class that lies under a trusted package
and implements the interface asked for.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import math
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from harness.errors import UsageError

CONF = Path(__file__).resolve().parents[1] / "conf"
CURRENCIES = ("steps", "tokens", "bytes", "flops", "seconds")
DEFAULT_STEPS = 2000
POSITIONS = ("all", "last")
BATCH_NORMS = ("moving", "precise", "frozen", "batch")
TRUSTED = ("zoo", "zoo_tokenizers", "harness", "torch.optim")

T = TypeVar("T")
Node = dict[str, Any]


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
    steps: int | None = None
    tokens: int | None = None
    bytes: int | None = None
    flops: float | None = None
    seconds: float | None = None

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
class Settings:
    """Everything that decides a run. The nodes with a `_target_` are built by `build`."""

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
    trust: list[str] = field(default_factory=list)
    assets: list[str | None] = field(default_factory=list)

    def build(self, group: str, interface: type[T], **given: Any) -> T:
        """The object a group's node describes; `given` are the arguments the data decide."""
        return build(getattr(self, group), interface, group, trust=self.trust, **given)

    def dump(self) -> str:
        """As YAML: with the code's version, all it takes to repeat the run."""
        return OmegaConf.to_yaml(OmegaConf.structured(self))


def read(config: DictConfig | Mapping[str, Any]) -> Settings:
    """Check a composed configuration. Raises UsageError at the first thing that can't be."""
    plain = {key: value for key, value in _resolve(config).items() if key != "hydra"}
    plain.pop("experiment", None)  # an empty group leaves its name behind
    _refuse_non_finite(plain, "")
    try:
        settings = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Settings), plain))
    except OmegaConfBaseException as error:
        raise UsageError(_one_line(error)) from error
    assert isinstance(settings, Settings)
    _check_ranges(settings)
    return settings


def load(path: Path) -> Settings:
    """The settings of a run's config.yaml. What it trusts does not count: only the user says."""
    try:
        settings = read(typing.cast(DictConfig, OmegaConf.load(path)))
    except FileNotFoundError as error:
        raise UsageError(f"{path.parent} is not a run's folder: it has no {path.name}") from error
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} can't be read: {_one_line(error)}") from error
    settings.trust = []
    return settings


def build(node: Node, interface: type[T], where: str, trust: Iterable[str] = (), **given: Any) -> T:
    """Make the object that `node` describes by `_target_` and its arguments.

    Raises UsageError if the class is not trusted, does not implement `interface`, or refuses
    an argument.
    """
    cls = resolve_class(str(node.get("_target_")), interface, where, trust)
    arguments = {key: value for key, value in node.items() if key != "_target_"}
    _check_arguments(cls, arguments, given, where)
    try:
        return cls(**arguments, **given)
    except ValueError as error:
        raise UsageError(f"{where}: {error}") from error


def resolve_class(
    target: str, interface: type[T], where: str, trust: Iterable[str] = ()
) -> type[T]:
    """The class called `target`, if it is one that configuration may name."""
    trusted = (*TRUSTED, *trust)
    module_name, _, class_name = target.rpartition(".")
    if not _under(module_name, trusted):
        raise UsageError(
            f"{where}._target_={target} lies outside the trusted packages "
            f"({', '.join(trusted)}); if it is yours, add trust=[{target.split('.')[0]}]"
        )
    try:
        cls = getattr(importlib.import_module(module_name), class_name)
    except (ImportError, AttributeError) as error:
        raise UsageError(f"{where}._target_={target} does not exist: {error}") from error
    # A trusted module's namespace holds what it imported, too: the class itself must be at home.
    if not (
        inspect.isclass(cls) and issubclass(cls, interface) and _under(cls.__module__, trusted)
    ):
        raise UsageError(f"{where}._target_={target} is no {interface.__name__}")
    return cls


def nearest(word: str, choices: Iterable[str]) -> str:
    """' Did you mean …?' for the choice that looks most like `word`; empty if none does."""
    choices = list(choices)
    close = difflib.get_close_matches(word, choices, n=1, cutoff=0.5)
    if not close:  # compare the last part of dotted names: stepz should find train.steps
        tails = {choice.rpartition(".")[2]: choice for choice in choices}
        tail = difflib.get_close_matches(word.rpartition(".")[2], tails, n=1, cutoff=0.5)
        close = [tails[name] for name in tail]
    return f" Did you mean {close[0]}?" if close else ""


def _under(module: str, packages: Sequence[str]) -> bool:
    return any(module == package or module.startswith(package + ".") for package in packages)


def _resolve(config: DictConfig | Mapping[str, Any]) -> dict[str, Any]:
    try:
        if isinstance(config, DictConfig):
            missing = sorted(
                key for key in OmegaConf.missing_keys(config) if not key.startswith("hydra.")
            )
            if missing:
                raise UsageError(f"{missing[0]} has no value; give one: {missing[0]}=…")
            config = config.copy()
            OmegaConf.set_struct(config, False)
            config.pop("hydra", None)
            return typing.cast(dict[str, Any], OmegaConf.to_container(config, resolve=True))
        return dict(config)
    except OmegaConfBaseException as error:
        raise UsageError(_one_line(error)) from error


def _refuse_non_finite(value: Any, key: str) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise UsageError(f"{key}={value} is not a finite number")
    if isinstance(value, Mapping):
        for name, inner in value.items():
            _refuse_non_finite(inner, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list):
        for position, inner in enumerate(value):
            _refuse_non_finite(inner, f"{key}[{position}]")


def _check_ranges(settings: Settings) -> None:
    def require(holds: bool, key: str, value: object, rule: str) -> None:
        if not holds:
            raise UsageError(f"{key}={value} must be {rule}")

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
    require(train.patience is None or train.patience >= 1, "train.patience", train.patience, ">= 1")
    for key, word, words in (
        ("train.positions", train.positions, POSITIONS),
        ("train.batch_norm", train.batch_norm, BATCH_NORMS),
    ):
        if word not in words:
            raise UsageError(
                f"{key}={word} is not one of {', '.join(words)}.{nearest(word, words)}"
            )
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
    require(0 <= settings.seed < 2**63, "seed", settings.seed, "a whole number from 0 to 2^63 - 1")
    for key, value, choices in (
        ("precision", settings.precision, ("auto", "fp32", "bf16", "fp16")),
        ("device", settings.device.partition(":")[0], ("auto", "cpu", "cuda", "mps")),
    ):
        if value not in choices:
            raise UsageError(
                f"{key}={value} is not one of {', '.join(choices)}.{nearest(value, choices)}"
            )


def _check_arguments(cls: type, arguments: Node, given: Mapping[str, Any], where: str) -> None:
    """Against the constructor's signature, so that a typo never becomes a default."""
    parameters = dict(inspect.signature(cls).parameters)
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    hints = typing.get_type_hints(inspect.getattr_static(cls, "__init__"))
    for name, value in arguments.items():
        if name not in parameters and not takes_any:
            choices = [choice for choice in parameters if choice not in given]
            raise UsageError(
                f"{where}.{name}: {cls.__name__} has no such setting.{nearest(name, choices)}"
            )
        if name in given:
            raise UsageError(f"{where}.{name} can't be set: the data decide it")
        if name in hints and not _fits(value, hints[name]):
            raise UsageError(f"{where}.{name}={value!r} should be {_describe(hints[name])}")
    for name, parameter in parameters.items():
        required = parameter.default is parameter.empty and parameter.kind in (
            parameter.POSITIONAL_OR_KEYWORD,
            parameter.KEYWORD_ONLY,
        )
        if required and name not in arguments and name not in given:
            raise UsageError(f"{where}.{name} has no value; give one: {where}.{name}=…")


def _fits(value: Any, hint: Any) -> bool:
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, choice) for choice in inner)
    if origin is typing.Literal:
        return value in inner
    if hint is None or hint is type(None):
        return value is None
    if hint in (bool, str):
        return isinstance(value, hint)
    if hint in (int, float):
        numbers = (int,) if hint is int else (int, float)
        return isinstance(value, numbers) and not isinstance(value, bool)
    if origin in (list, tuple):
        kinds = [kind for kind in inner if kind is not Ellipsis]
        if not isinstance(value, (list, tuple)):
            return False
        if origin is tuple and Ellipsis not in inner:
            return len(value) == len(kinds) and all(map(_fits, value, kinds))
        return all(_fits(item, kinds[0]) for item in value) if kinds else True
    return True  # no plain kind of value: the constructor itself must judge


def _describe(hint: Any) -> str:
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "a word"}
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_describe(choice) for choice in inner)
    if origin is typing.Literal:
        return "one of " + ", ".join(map(str, inner))
    if hint is type(None):
        return "null"
    return names.get(hint, str(hint))


def _one_line(error: BaseException) -> str:
    """OmegaConf puts the key on a line of its own; keep the message and the key."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    key = next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("full_key:")), ""
    )
    message = lines[0] if lines else type(error).__name__
    return f"{key}: {message}" if key and key not in message else message
