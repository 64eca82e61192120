"""A run's settings: typed, checked, frozen.

Each field declares its type, range and roles. Code that treats some settings differently selects
them by `keys_with_role`.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Flag, auto
from typing import Annotated, Any, Literal, Self, get_args

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)
from pydantic_core import PydanticCustomError, PydanticUndefined

from harness.common.errors import UsageError
from harness.common.paths import expand
from harness.common.values import require_choice, show
from harness.config import secrets
from harness.config.build import (
    T,
    build_object,
    check_object,
    reject_nested_targets,
    require_trusted_class,
)
from harness.config.complaints import (
    first_error,
    one_line,
    reject_extreme_numbers,
    reject_missing_values,
    reject_unprintable,
)
from harness.config.keys import Node, names_in_group

Currency = Literal["steps", "tokens", "bytes", "flops", "seconds"]
CURRENCIES: tuple[str, ...] = get_args(Currency)
DEFAULT_STEPS = 2000
Init = Literal["default", "kaiming", "xavier", "gpt2", "truncated_normal"]
BatchNorm = Literal["moving", "precise", "frozen", "batch"]
Resume = bool | Literal["auto"]
Precision = Literal["auto", "fp32", "bf16", "fp16"]
Matmul = Literal["auto", "blas", "onednn"]
PRECISIONS: tuple[str, ...] = get_args(Precision)
DEVICES = ("auto", "cpu", "cuda", "mps")
KEEPS = ("latest", "all", "log")
FORK = re.compile(r"(?P<run>.+)@(?P<step>\d{1,15})", re.DOTALL)


class Role(Flag):
    """What a setting may change without effect. One without a role affects the numbers of a run."""

    RESUMABLE = auto()
    """May change when a run is resumed."""
    SAME_JOB = auto()
    """Does not distinguish the jobs of a sweep."""
    SAME_CONFIGURATION = auto()
    """Does not distinguish configurations in a report: seeds, paths, observation."""
    FROM_USER = auto()
    """Never read from a run's folder, which may come from a stranger."""


@dataclass(frozen=True)
class KeyRole:
    """The role of one key of a group whose keys are a class's arguments."""

    key: str
    role: Role


NO_EFFECT = Role.RESUMABLE | Role.SAME_CONFIGURATION
NEVER_COMPARED = NO_EFFECT | Role.SAME_JOB
PositiveInt = Annotated[int, Field(ge=1)]
PositiveFloat = Annotated[float, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, lt=1)]


def _plain_name(name: str) -> str:
    """It is part of a folder's name, which must not contain a path."""
    if re.fullmatch(r"\w[\w.+-]{0,99}", name) is None:
        raise PydanticCustomError("range", "a plain name: letters, digits, . _ + -")
    return name


Name = Annotated[str, AfterValidator(_plain_name)]


class _Group(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")

    def replace(self, **changes: Any) -> Self:
        """A copy with other values, not validated."""
        return self.model_copy(update=changes)

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        """Of the settings that have one: they came after the first version, whose runs lack
        them."""
        found: dict[str, Any] = {}
        for name, field in cls.model_fields.items():
            if isinstance(kind := field.annotation, type) and issubclass(kind, _Group):
                found[name] = kind.defaults()
            elif field.default is not PydanticUndefined:
                found[name] = field.default
        return {name: value for name, value in found.items() if value != {}}


class Names(_Group):
    """The chosen file of each group; names the run in tables and folders."""

    # The name of the fallback corpus if that was used; `data` itself is compared.
    data: Annotated[Name, Role.RESUMABLE | Role.SAME_JOB]
    tokenizer: Name
    model: Name


def _absolute(path: str) -> str:
    """A path of what is here means the same to a later command in another folder."""
    here = os.path.expanduser(path)
    return os.path.abspath(here) if os.path.exists(here) or glob.has_magic(here) else path


def _from_anywhere(files: dict[str, str] | None) -> dict[str, str] | None:
    return files and {name: _absolute(path) for name, path in files.items()}


class TrainSettings(_Group):
    """The training budget is given by one of steps, tokens, bytes, flops, seconds."""

    batch_size: PositiveInt
    seq_len: PositiveInt
    accumulate: PositiveInt
    clip: PositiveFloat | None
    positions: Literal["all", "last"]
    label_smoothing: Fraction
    max_norm: PositiveFloat | None
    ema: Fraction | None
    patience: Annotated[PositiveInt | None, Role.RESUMABLE]
    batch_norm: BatchNorm
    batch_norm_samples: Annotated[int, Field(ge=2)]
    batch_norm_frozen: Annotated[float, Field(gt=0, le=1)]
    on_non_finite: Annotated[Literal["stop", "skip"], Role.RESUMABLE] = "stop"
    steps: Annotated[PositiveInt | None, Role.RESUMABLE] = None
    tokens: Annotated[PositiveInt | None, Role.RESUMABLE] = None
    bytes: Annotated[PositiveInt | None, Role.RESUMABLE] = None
    flops: Annotated[PositiveFloat | None, Role.RESUMABLE] = None
    seconds: Annotated[PositiveFloat | None, Role.RESUMABLE] = None

    @model_validator(mode="before")
    @classmethod
    def _choose_budget(cls, plain: Any) -> Any:
        if not isinstance(plain, dict):
            return plain
        given = [name for name in CURRENCIES if plain.get(name) is not None]
        if len(given) > 1:
            raise PydanticCustomError(
                "whole_line",
                f"the budget is given twice, by train.{given[0]} and train.{given[1]}: give one",
            )
        return plain if given else plain | {"steps": DEFAULT_STEPS}

    @property
    def trained(self) -> slice:
        """The positions of a sequence that count in the loss."""
        return slice(-1, None) if self.positions == "last" else slice(None)

    @property
    def budget(self) -> tuple[str, float]:
        """Currency and amount of the budget."""
        given = [(name, getattr(self, name)) for name in CURRENCIES]
        return next((name, amount) for name, amount in given if amount is not None)


class EvalSettings(_Group):
    every: Annotated[PositiveInt, Role.RESUMABLE]
    stride: int | None
    batch_size: Annotated[PositiveInt, NO_EFFECT]
    sample_tokens: Annotated[Annotated[int, Field(ge=0)], NO_EFFECT]
    prompt: Annotated[str, NO_EFFECT]
    part: Annotated[Annotated[float, Field(gt=0, le=1)], Role.SAME_CONFIGURATION] = 1.0
    untrained: Annotated[bool, Role.RESUMABLE] = True
    # A run's folder can't choose which files are read.
    also: Annotated[
        dict[Name, str] | None, AfterValidator(_from_anywhere), NO_EFFECT | Role.FROM_USER
    ] = None

    def is_due(self, step: int) -> bool:
        """Whether the weights after so many steps are scored; the last ones are in any case."""
        return step % self.every == 0 and (step > 0 or self.untrained)

    def times(self, steps: int) -> int:
        """How often a training of so many steps is scored."""
        return -(-steps // self.every) + self.untrained


class CheckpointSettings(_Group):
    """keep: which checkpoints stay beside the newest."""

    every: PositiveInt
    keep: Literal["latest", "all", "log"] | list[Annotated[int, Field(ge=0)]] = "latest"

    @model_validator(mode="before")
    @classmethod
    def _check_keep(cls, plain: Any) -> Any:
        keep = plain.get("keep") if isinstance(plain, dict) else None
        if isinstance(keep, list) and all(type(step) is int and step >= 0 for step in keep):
            return plain
        if keep not in (None, *KEEPS):
            raise PydanticCustomError(
                "whole_line",
                f"checkpoint.keep={show(keep)} is none of {', '.join(KEEPS)}, and no list of steps "
                "([100,1000])".replace("{", "("),
            )
        return plain


class ObserveSettings(_Group):
    """every: steps between two observations; None: never."""

    every: PositiveInt | None = None
    full: bool = False


def _path_from_anywhere(data: Node) -> Node:
    if isinstance(texts := data.get("texts"), dict):  # of a mix: paths, or choices of data
        choices = names_in_group("data")
        return data | {
            "texts": {
                name: _absolute(each) if isinstance(each, str) and each not in choices else each
                for name, each in texts.items()
            }
        }
    name, path = data.get("name"), data.get("path")
    if isinstance(name, str) and name.startswith((".", "/", "~")):  # a dataset's folder
        return data | {"name": _absolute(name)}
    if isinstance(path, list):
        return data | {
            "path": [_absolute(each) if isinstance(each, str) else each for each in path]
        }
    return data | {"path": _absolute(path)} if isinstance(path, str) and path else data


def folder_from_anywhere(tokenizer: Node) -> Node:
    """The same of a folder that a tokenizer's name names: with a digest, only a name that is typed
    as a path does."""
    name = tokenizer.get("name")
    if not isinstance(name, str) or not os.path.isdir(path := os.path.expanduser(name)):
        return tokenizer
    is_meant = tokenizer.get("sha256") is None or name.startswith((".", "/", "~"))
    return tokenizer | {"name": os.path.abspath(path)} if is_meant else tokenizer


def _has_local(loggers: dict[str, Node]) -> dict[str, Node]:
    if "local" not in loggers:
        raise PydanticCustomError("range", "local and others: it is always on")
    return loggers


def _device(device: str) -> str:
    try:
        require_device("device", device)
    except UsageError as error:
        raise PydanticCustomError("whole_line", str(error).replace("{", "(")) from error
    return device


def _expanded(path: str | None) -> str | None:
    return str(expand(path)) if path else path


def _fork(text: str | None) -> str | None:
    """RUN@STEP, the run as a path that means the same to a later command in another folder."""
    if text is None:
        return None
    if (parts := FORK.fullmatch(text)) is None:
        raise PydanticCustomError("range", "RUN@STEP: a run's folder and the step of a checkpoint")
    return f"{expand(parts['run']).absolute()}@{int(parts['step'])}"


class Settings(_Group):
    """All settings of a run. Nodes with a `_target_` are built by `build`."""

    names: Names
    # Runs compare the digest of the text, not its path or name.
    data: Annotated[
        Node,
        AfterValidator(_path_from_anywhere),
        KeyRole("path", NO_EFFECT),
        KeyRole("name", NO_EFFECT),
        KeyRole("revision", NO_EFFECT),
        KeyRole("texts", NO_EFFECT),
        KeyRole("errors", NO_EFFECT),
        KeyRole("field", NO_EFFECT),
        KeyRole("separator", NO_EFFECT),
    ]
    tokenizer: Annotated[Node, AfterValidator(folder_from_anywhere)]
    model: Node
    optimizer: Node
    schedule: Node
    train: TrainSettings
    eval: EvalSettings
    checkpoint: Annotated[CheckpointSettings, NO_EFFECT]
    # They send to addresses, and with the user's keys: a folder can't choose them.
    logger: Annotated[dict[str, Node], AfterValidator(_has_local), NEVER_COMPARED | Role.FROM_USER]
    seed: Annotated[int, Field(ge=0), Role.SAME_CONFIGURATION]
    device: Annotated[str, AfterValidator(_device), NO_EFFECT]
    precision: Precision
    compile: bool
    resume: Annotated[Resume, NEVER_COMPARED]
    run_dir: Annotated[str | None, AfterValidator(_expanded), NEVER_COMPARED]
    cache: Annotated[str | None, NEVER_COMPARED | Role.FROM_USER]
    checkpoint_dir: Annotated[str | None, NEVER_COMPARED | Role.FROM_USER] = None
    fork_from: Annotated[str | None, AfterValidator(_fork)] = None
    init: Init = "default"
    zero_residual: bool = False
    ngrams: Annotated[int, Field(ge=1, le=8)] = 1
    ngram_rows: Annotated[int, Field(ge=1, le=2**24)] | None = None
    tf32: bool = False
    matmul: Annotated[Matmul, NEVER_COMPARED] = "blas"  # as it was before there was a choice
    observe: Annotated[ObserveSettings, NO_EFFECT] = ObserveSettings()
    metrics: Annotated[list[str], NEVER_COMPARED | Role.FROM_USER] = []
    trust: Annotated[list[str], NEVER_COMPARED | Role.FROM_USER] = []
    assets: Annotated[list[str | None], NEVER_COMPARED | Role.FROM_USER] = []

    def build(self, group: str, interface: type[T], **given: Any) -> T:
        """Build the object of a group. given: arguments that follow from the data."""
        return build_object(getattr(self, group), interface, group, trust=self.trust, **given)

    def check(self, group: str, interface: type[T], **given: Any) -> None:
        """Raises UsageError for a wrong class and for wrong names or types of arguments; `build`
        finds other errors."""
        check_object(getattr(self, group), interface, group, trust=self.trust, **given)

    def nodes(self) -> Iterable[tuple[str, Node]]:
        """Every node that is built, with its key."""
        for group in ("data", "tokenizer", "model", "optimizer", "schedule"):
            yield group, getattr(self, group)
        for name, node in self.logger.items():
            yield f"logger.{name}", node

    def plain(self) -> dict[str, Any]:
        """The settings as plain values."""
        return self.model_dump()

    def dump(self) -> str:
        """The settings as YAML; with the code version enough to repeat the run."""
        return OmegaConf.to_yaml(OmegaConf.create(self.plain()))


class SweepSettings(_Group):
    """What concerns a sweep alone, and none of its runs. together: keys. devices: their names,
    auto, cores, or how many jobs at a time."""

    together: list[str] = []
    devices: PositiveInt | str | list[str] | None = None


class _OfSweep(BaseModel):
    sweep: SweepSettings


def read_sweep(config: DictConfig) -> SweepSettings:
    """Raises UsageError for the first error."""
    plain = {"sweep": OmegaConf.to_container(config.sweep, resolve=True)}
    try:
        return _OfSweep.model_validate(plain).sweep
    except ValidationError as error:
        raise UsageError(first_error(error, _OfSweep, plain)) from error


def keys_with_role(role: Role, group: type[_Group] = Settings, prefix: str = "") -> frozenset[str]:
    """The dotted keys of all settings and groups with this role."""
    found: set[str] = set()
    for name, field in group.model_fields.items():
        for mark in field.metadata:
            if isinstance(mark, Role) and role in mark:
                found.add(prefix + name)
            if isinstance(mark, KeyRole) and role in mark.role:
                found.add(f"{prefix}{name}.{mark.key}")
        if isinstance(field.annotation, type) and issubclass(field.annotation, _Group):
            found |= keys_with_role(role, field.annotation, f"{prefix}{name}.")
    return frozenset(found)


def read_settings(config: DictConfig | Mapping[str, Any]) -> Settings:
    """Validate a composed configuration. Raises UsageError for the first error."""
    plain = _resolve(config)
    plain.pop("hydra", None)
    plain.pop("experiment", None)  # left over when no experiment is chosen
    plain.pop("sweep", None)
    reject_extreme_numbers(plain)
    reject_unprintable(plain)
    secrets.reject(plain)
    try:
        settings = Settings.model_validate(plain)
    except ValidationError as error:
        raise UsageError(first_error(error, Settings, plain)) from error
    reject_missing_values(plain)
    for where, node in settings.nodes():
        if not isinstance(node.get("_target_"), str):
            raise UsageError(f"{where} names no class: it has no _target_")
        reject_nested_targets(node, where)
    return settings


def require_trusted(settings: Settings) -> None:
    """Raises UsageError for a class or a function outside the trusted packages, without importing
    it."""
    for where, node in settings.nodes():
        require_trusted_class(node["_target_"], where, settings.trust)
    for target in settings.metrics:
        require_trusted_class(target, "metrics", settings.trust, None)


def require_device(key: str, device: str) -> None:
    """Raises UsageError unless `device` is one of DEVICES, optionally with an index (cuda:1)."""
    kind, colon, number = device.partition(":")
    require_choice(key, kind, DEVICES)
    if colon and not (number.isascii() and number.isdigit()):
        raise UsageError(f"{key}={show(device)} should be {kind} or {kind}:0, {kind}:1, …")


def _resolve(config: DictConfig | Mapping[str, Any]) -> dict[str, Any]:
    if isinstance(config, DictConfig):
        config = config.copy()
        OmegaConf.set_struct(config, False)
        config.pop("hydra", None)
        try:
            plain: Any = OmegaConf.to_container(config, resolve=True)
        except OmegaConfBaseException as error:
            raise UsageError(one_line(error)) from error
        return dict(plain)
    if not isinstance(config, Mapping):
        raise UsageError("the configuration is not a mapping of settings")
    return dict(config)
