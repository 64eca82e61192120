"""A run's settings: typed, checked, and turned into objects.

Configuration is data: `build` makes an object only from a class that lies under a trusted package
and implements the interface asked for.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import math
import re
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from harness import secrets
from harness.errors import UsageError
from harness.values import closest, describe, fits, nearest, show

CONF = Path(__file__).resolve().parents[1] / "conf"
CURRENCIES = ("steps", "tokens", "bytes", "flops", "seconds")
DEFAULT_STEPS = 2000
POSITIONS = ("all", "last")
INITS = ("default", "kaiming", "xavier", "gpt2", "truncated_normal")
BATCH_NORMS = ("moving", "precise", "frozen", "batch")
ON_NON_FINITE = ("stop", "skip")
TRUSTED = ("zoo", "zoo_tokenizers", "harness", "torch.optim")
PRECISIONS = ("auto", "fp32", "bf16", "fp16")
DEVICES = ("auto", "cpu", "cuda", "mps")

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
    init: str = "default"
    zero_residual: bool = False
    tf32: bool = False
    observe: ObserveSettings = field(default_factory=ObserveSettings)
    trust: list[str] = field(default_factory=list)
    assets: list[str | None] = field(default_factory=list)

    def build(self, group: str, interface: type[T], **given: Any) -> T:
        """The object a group's node describes; `given` are the arguments the data decide."""
        return build(getattr(self, group), interface, group, trust=self.trust, **given)

    def check(self, group: str, interface: type[T], **given: Any) -> None:
        """Raises UsageError if the group's class or the names and types of its arguments are wrong;
        what else is, only `build` can tell."""
        check(getattr(self, group), interface, group, trust=self.trust, **given)

    def dump(self) -> str:
        """As YAML: with the code's version, all it takes to repeat the run."""
        return OmegaConf.to_yaml(OmegaConf.structured(self))


def read(config: DictConfig | Mapping[str, Any]) -> Settings:
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
        _refuse_nested_targets(node, where)
    return settings


def load(path: Path) -> Settings:
    """The settings of a run's config.yaml. What it trusts does not count: only the user says."""
    try:
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(path.read_text())):
            raise ValueError("it holds aliases, ten of which can fill any memory")
        # What a run writes is resolved: a ${oc.env:…} in it is text, or it would read our secrets.
        plain: Any = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
        settings = read(plain)
    except FileNotFoundError as error:
        raise UsageError(f"{path.parent} is not a run's folder: it has no {path.name}") from error
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise UsageError(f"{path} can't be read: {_one_line(error)}") from error
    settings.trust = []
    return settings


def require_trusted(settings: Settings) -> None:
    """Raises UsageError if a node names a class outside the trusted packages. Imports nothing."""
    for where, node in _nodes(settings):
        _require_trusted(node["_target_"], where, settings.trust)


def build(node: Node, interface: type[T], where: str, trust: Iterable[str] = (), **given: Any) -> T:
    """Make the object that `node` describes by `_target_` and its arguments.

    Raises UsageError if the class is not trusted, does not implement `interface`, or refuses
    an argument.
    """
    cls, arguments = check(node, interface, where, trust, **given)
    try:
        return cls(**arguments, **given)
    except ValueError as error:
        raise UsageError(f"{where}: {error}") from error


def check(
    node: Node, interface: type[T], where: str, trust: Iterable[str] = (), **given: Any
) -> tuple[type[T], Node]:
    """The class that `node` names and the arguments it gives, if the one may be named and takes
    the others."""
    cls = resolve_class(str(node.get("_target_")), interface, where, trust)
    arguments = {key: value for key, value in node.items() if key != "_target_"}
    _check_arguments(cls, arguments, given, where)
    return cls, arguments


def resolve_class(
    target: str, interface: type[T], where: str, trust: Iterable[str] = ()
) -> type[T]:
    """The class called `target`, if it is one that configuration may name."""
    trusted = _require_trusted(target, where, trust)
    module_name, _, class_name = target.rpartition(".")
    try:
        cls = getattr(importlib.import_module(module_name), class_name)
    except (ImportError, AttributeError) as error:
        raise UsageError(f"{where}._target_={target} does not exist: {error}") from error
    # A trusted module's namespace holds what it imported, too: the class itself must be at home.
    if not (
        inspect.isclass(cls)
        and issubclass(cls, interface)
        and cls is not interface
        and not inspect.isabstract(cls)
        and _under(cls.__module__, trusted)
    ):
        raise UsageError(f"{where}._target_={target} is no {interface.__name__}")
    return cls


def _require_trusted(target: str, where: str, trust: Iterable[str]) -> tuple[str, ...]:
    """The packages that are trusted; raises UsageError if `target` lies in none of them."""
    trusted = (*TRUSTED, *trust)
    if not _under(target.rpartition(".")[0], trusted):
        package = target.partition(".")[0]
        raise UsageError(
            f"{where}._target_={target} lies outside the trusted packages ({', '.join(trusted)}); "
            f"if you trust it, say so: trust=[{package}] (--trust {package} for a finished run)"
        )
    return trusted


def _nodes(settings: Settings) -> Iterable[tuple[str, Node]]:
    """All that configuration builds, with its key."""
    for group in ("data", "tokenizer", "model", "optimizer", "schedule"):
        yield group, getattr(settings, group)
    for name, node in settings.logger.items():
        yield f"logger.{name}", node


def _refuse_nested_targets(value: Any, key: str, depth: int = 0) -> None:
    """Configuration is flat: a class within a class would be built by nobody, or by surprise."""
    items = value.items() if isinstance(value, Mapping) else enumerate(value)
    for name, inner in items:
        if name == "_target_" and depth:
            raise UsageError(
                f"{key}._target_={show(inner)}: only {key.split('.')[0]} itself names a class"
            )
        if isinstance(inner, (Mapping, list)):
            _refuse_nested_targets(inner, f"{key}.{name}", depth + 1)


def no_setting(key: str, known: Iterable[str] = ()) -> str:
    """What to say of a key that does not exist, with the nearest of those that do."""
    known = list(known) or list(_known_keys())
    group, _, name = key.rpartition(".")
    inside = [each.rpartition(".")[2] for each in known if each.rpartition(".")[0] == group]
    if not group or not inside:
        hint = nearest(key, known)
    elif near := closest(name, inside):
        hint = f" Did you mean {group}.{near}?"
    else:
        hint = f" {group} has: {', '.join(dict.fromkeys(inside))}"
    return f"there is no setting {show(key)}.{hint}"


def _known_keys() -> Iterable[str]:
    """Every group and every dotted key of any file in conf/."""
    yield "hydra.sweep.dir"
    for path in sorted(CONF.rglob("*.yaml")):
        group = path.relative_to(CONF).parent.as_posix()
        if group == "experiment":
            continue
        yield from ([] if group == "." else [group])
        yield from keys(OmegaConf.load(path), "" if group == "." else f"{group}.")


def keys(node: object, prefix: str = "") -> Iterable[str]:
    if isinstance(node, DictConfig):
        for key in map(str, node):
            if key in ("defaults", "hydra"):
                continue
            yield f"{prefix}{key}"
            yield from keys(node._get_node(key), f"{prefix}{key}.")


def choices(group: str) -> list[str]:
    """The names of the files in a group of conf/."""
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def require_choice(key: str, value: str, valid: Sequence[str]) -> None:
    """Raises UsageError, with the nearest, if `value` is not one of `valid`."""
    if value not in valid:
        raise UsageError(
            f"{key}={show(value)} is not one of {', '.join(valid)}.{nearest(value, valid)}"
        )


def _under(module: str, packages: Sequence[str]) -> bool:
    return any(module == package or module.startswith(package + ".") for package in packages)


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
            raise UsageError(_no_value(prefix + each.name))
    values: dict[str, Any] = {}
    for name, value in plain.items():
        key, hint = prefix + name, hints[name]
        if value == "???":
            raise UsageError(_no_value(key))
        if dataclasses.is_dataclass(hint) and isinstance(value, Mapping):
            values[name] = _typed(typing.cast(type, hint), value, f"{key}.")
            continue
        if dataclasses.is_dataclass(hint) or not fits(value, hint):
            raise UsageError(_mismatch(key, value, hint))
        _refuse_missing(value, key)
        values[name] = value
    return kind(**values)


def _mismatch(key: str, value: Any, hint: Any) -> str:
    wants_text = isinstance(value, (bool, int, float)) and describe(hint).startswith("text")
    quoted = f"; as text: '{key}=\"{show(value)}\"'" if wants_text else ""
    return f"{key}={show(value)} should be {describe(hint)}{quoted}"


def _refuse_missing(value: Any, key: str) -> None:
    """Values that a file leaves to the user are written ???."""
    if value == "???":
        raise UsageError(_no_value(key))
    if isinstance(value, Mapping):
        for name, inner in value.items():
            _refuse_missing(inner, f"{key}.{name}")


def _no_value(key: str) -> str:
    names = ", ".join(choices(key))
    return f"{key} has no value; give one: {key}=…" + (f" (one of {names})" if names else "")


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


def _check_arguments(cls: type, arguments: Node, given: Mapping[str, Any], where: str) -> None:
    """Against the constructor's signature, so that a typo never becomes a default."""
    parameters = dict(inspect.signature(cls).parameters)
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    hints = _hints(cls)
    for name, value in arguments.items():
        if name not in parameters and not takes_any:
            known = [choice for choice in parameters if choice not in given]
            raise UsageError(
                f"there is no setting {where}.{name}: {cls.__name__} does not have it."
                f"{nearest(str(name), known)}"
            )
        if name in given:
            raise UsageError(f"{where}.{name} can't be set: the data decide it")
        if name in hints and not fits(value, hints[name]):
            raise UsageError(_mismatch(f"{where}.{name}", value, hints[name]))
    for name, parameter in parameters.items():
        required = parameter.default is parameter.empty and parameter.kind in (
            parameter.POSITIONAL_OR_KEYWORD,
            parameter.KEYWORD_ONLY,
        )
        if required and name not in arguments and name not in given:
            raise UsageError(_no_value(f"{where}.{name}"))


def _hints(cls: type) -> dict[str, Any]:
    try:
        return typing.get_type_hints(inspect.getattr_static(cls, "__init__"))
    except NameError:  # a type imported for type checkers alone: the constructor must judge
        return {}


def _one_line(error: BaseException) -> str:
    """OmegaConf puts the key on a line of its own; keep the message and the key."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    key = next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("full_key:")), ""
    )
    message = lines[0] if lines else type(error).__name__
    return f"{key}: {message}" if key and key not in message else message
