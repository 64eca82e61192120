"""A run's settings: typed, checked, frozen.

Each field declares its type, its range and its roles; everything that treats settings differently
asks `keys_with` for theirs.
"""

from __future__ import annotations

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
from pydantic_core import PydanticCustomError

from harness.common.errors import UsageError
from harness.common.values import require_choice, show
from harness.config import secrets
from harness.config.build import (
    Node,
    T,
    build_object,
    check_object,
    refuse_nested_targets,
    require_trusted_class,
)
from harness.config.complaints import complaint, one_line, refuse_extreme_numbers, refuse_missing

Currency = Literal["steps", "tokens", "bytes", "flops", "seconds"]
CURRENCIES: tuple[str, ...] = get_args(Currency)
DEFAULT_STEPS = 2000
Init = Literal["default", "kaiming", "xavier", "gpt2", "truncated_normal"]
BatchNorm = Literal["moving", "precise", "frozen", "batch"]
Precision = Literal["auto", "fp32", "bf16", "fp16"]
PRECISIONS: tuple[str, ...] = get_args(Precision)
DEVICES = ("auto", "cpu", "cuda", "mps")


class Role(Flag):
    """What a setting does not decide. Without a role it decides the numbers of a run."""

    RESUMABLE = auto()
    """May have another value when a run is resumed."""
    SAME_JOB = auto()
    """Does not tell one job of a sweep from another."""
    SAME_CONFIGURATION = auto()
    """Does not tell two configurations apart in a report: seeds, places, what is watched."""
    FROM_USER = auto()
    """Never taken from a run's folder, which may be a stranger's."""


@dataclass(frozen=True)
class Inside:
    """The role of one key of a group whose keys are those of a class."""

    key: str
    role: Role


WATCHED = Role.RESUMABLE | Role.SAME_CONFIGURATION
PLACE = WATCHED | Role.SAME_JOB
Positive = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, lt=1)]
Above0 = Annotated[float, Field(gt=0)]


def _plain_name(name: str) -> str:
    """It becomes the name of a folder, which must not climb out of its own."""
    if re.fullmatch(r"\w[\w.+-]{0,99}", name) is None:
        raise PydanticCustomError("range", "a plain name: letters, digits, . _ + -")
    return name


Name = Annotated[str, AfterValidator(_plain_name)]


class _Group(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")

    def replace(self, **changes: Any) -> Self:
        """A copy with other values, which are not checked."""
        return self.model_copy(update=changes)


class Names(_Group):
    """Which file of each group was chosen: what tables and folders call the run."""

    # That of a stand-in where the corpus could not be had; `data` itself is compared.
    data: Annotated[Name, Role.RESUMABLE | Role.SAME_JOB]
    tokenizer: Name
    model: Name


class TrainSettings(_Group):
    """The budget is the one of steps, tokens, bytes, flops and seconds that is given."""

    batch_size: Positive
    seq_len: Positive
    accumulate: Positive
    clip: Above0 | None
    positions: Literal["all", "last"]
    label_smoothing: Share
    max_norm: Above0 | None
    ema: Share | None
    patience: Annotated[Positive | None, Role.RESUMABLE]
    batch_norm: BatchNorm
    batch_norm_samples: Annotated[int, Field(ge=2)]
    batch_norm_frozen: Annotated[float, Field(gt=0, le=1)]
    on_non_finite: Annotated[Literal["stop", "skip"], Role.RESUMABLE] = "stop"
    steps: Annotated[Annotated[int, Field(gt=0)] | None, Role.RESUMABLE] = None
    tokens: Annotated[Annotated[int, Field(gt=0)] | None, Role.RESUMABLE] = None
    bytes: Annotated[Annotated[int, Field(gt=0)] | None, Role.RESUMABLE] = None
    flops: Annotated[Above0 | None, Role.RESUMABLE] = None
    seconds: Annotated[Above0 | None, Role.RESUMABLE] = None

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
        """The positions of a sequence that have a loss."""
        return slice(-1, None) if self.positions == "last" else slice(None)

    @property
    def budget(self) -> tuple[str, float]:
        """Its currency and its amount."""
        given = [(name, getattr(self, name)) for name in CURRENCIES]
        return next((name, amount) for name, amount in given if amount is not None)


class EvalSettings(_Group):
    every: Annotated[Positive, Role.RESUMABLE]
    stride: int | None
    batch_size: Annotated[Positive, WATCHED]
    sample_tokens: Annotated[Annotated[int, Field(ge=0)], WATCHED]
    prompt: Annotated[str, WATCHED]


class CheckpointSettings(_Group):
    every: Positive


class ObserveSettings(_Group):
    """every: steps between two looks inside; None: never."""

    every: Positive | None = None
    full: bool = False


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


class Settings(_Group):
    """Everything that decides a run. The nodes with a `_target_` are built by `build`."""

    names: Names
    # The text's digest is compared instead of its path: it may lie elsewhere by now.
    data: Annotated[Node, Inside("path", WATCHED)]
    tokenizer: Node
    model: Node
    optimizer: Node
    schedule: Node
    train: TrainSettings
    eval: EvalSettings
    checkpoint: Annotated[CheckpointSettings, WATCHED]
    logger: Annotated[dict[str, Node], AfterValidator(_has_local), PLACE]
    seed: Annotated[int, Field(ge=0), Role.SAME_CONFIGURATION]
    device: Annotated[str, AfterValidator(_device), WATCHED]
    precision: Precision
    compile: bool
    resume: Annotated[bool, PLACE]
    run_dir: Annotated[str | None, PLACE]
    cache: Annotated[str, PLACE | Role.FROM_USER]
    init: Init = "default"
    zero_residual: bool = False
    tf32: bool = False
    observe: Annotated[ObserveSettings, WATCHED] = ObserveSettings()
    trust: Annotated[list[str], PLACE | Role.FROM_USER] = []
    assets: Annotated[list[str | None], PLACE | Role.FROM_USER] = []

    def build(self, group: str, interface: type[T], **given: Any) -> T:
        """The object a group's node describes; `given` are the arguments the data decide."""
        return build_object(getattr(self, group), interface, group, trust=self.trust, **given)

    def check(self, group: str, interface: type[T], **given: Any) -> None:
        """Raises UsageError if the group's class or the names and types of its arguments are wrong;
        what else is, only `build` can tell."""
        check_object(getattr(self, group), interface, group, trust=self.trust, **given)

    def nodes(self) -> Iterable[tuple[str, Node]]:
        """All that configuration builds, with its key."""
        for group in ("data", "tokenizer", "model", "optimizer", "schedule"):
            yield group, getattr(self, group)
        for name, node in self.logger.items():
            yield f"logger.{name}", node

    def plain(self) -> dict[str, Any]:
        """As plain values."""
        return self.model_dump()

    def dump(self) -> str:
        """As YAML: with the code's version, all it takes to repeat the run."""
        return OmegaConf.to_yaml(OmegaConf.create(self.plain()))


def keys_with(role: Role, group: type[_Group] = Settings, prefix: str = "") -> frozenset[str]:
    """The dotted keys of the settings, and of whole groups, that have a role."""
    found: set[str] = set()
    for name, field in group.model_fields.items():
        for mark in field.metadata:
            if isinstance(mark, Role) and role in mark:
                found.add(prefix + name)
            if isinstance(mark, Inside) and role in mark.role:
                found.add(f"{prefix}{name}.{mark.key}")
        if isinstance(field.annotation, type) and issubclass(field.annotation, _Group):
            found |= keys_with(role, field.annotation, f"{prefix}{name}.")
    return frozenset(found)


def read_settings(config: DictConfig | Mapping[str, Any]) -> Settings:
    """Check a composed configuration. Raises UsageError at the first thing that can't be."""
    plain = _resolve(config)
    plain.pop("hydra", None)
    plain.pop("experiment", None)  # an empty group leaves its name behind
    refuse_extreme_numbers(plain, "")
    secrets.require_none(plain)
    try:
        settings = Settings.model_validate(plain)
    except ValidationError as error:
        raise UsageError(complaint(error, Settings, plain)) from error
    refuse_missing(plain, "")
    for where, node in settings.nodes():
        if not isinstance(node.get("_target_"), str):
            raise UsageError(f"{where} names no class: it has no _target_")
        refuse_nested_targets(node, where)
    return settings


def require_trusted(settings: Settings) -> None:
    """Raises UsageError if a node names a class outside the trusted packages. Imports nothing."""
    for where, node in settings.nodes():
        require_trusted_class(node["_target_"], where, settings.trust)


def require_device(key: str, device: str) -> None:
    """Raises UsageError for what names no device: one of DEVICES, or with a number, cuda:1."""
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
        raise UsageError("the configuration holds no settings by name")
    return dict(config)
