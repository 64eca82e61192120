"""The role of each parameter: the weight of a linear map, an embedding, or neither.

Weight decay, Muon, max-norm, initialization and the count of embedding parameters depend on it,
never on a tensor's number of dimensions. A module marks its own parameters:

    class Experts(nn.Module):
        parameter_roles: ClassVar = {"weight": Role(matrix=(1, 2), decay=True)}  # (E, out, in)

The tables below hold the modules of torch and of other libraries. Vectors need no mark: they have
no matrix and no decay. All other unmarked parameters have the role None.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any, TypeVar

from torch import Tensor, nn


@dataclass(frozen=True)
class Role:
    """How a parameter is treated.

    matrix: the axes of a linear map: output, then inputs; (): not a linear map. They are the
        parameter's last axes, in any order. Axes before them stack separate matrices.
    decay: weight decay applies. Embeddings that are no output go by the optimizer's
        `decay_embeddings` instead.
    embedding: a look-up table of vectors.
    output: the linear map to logits.
    bias: an initialization scheme sets it to zero.
    maps: the outputs of each of several maps that are stored as one, see `joint`; (): one map.
    """

    matrix: tuple[int, ...] = ()
    decay: bool = False
    embedding: bool = False
    output: bool = False
    bias: bool = False
    maps: tuple[int, ...] = ()

    def stack(self, parameter: Tensor) -> int:
        """The number of axes that stack matrices."""
        return parameter.dim() - len(self.matrix) if self.matrix else 0

    def fits(self, parameter: Tensor) -> bool:
        """Whether `matrix` names the parameter's last axes."""
        axes = range(self.stack(parameter), parameter.dim())
        return not self.matrix or (len(axes) >= 2 and sorted(self.matrix) == list(axes))

    def maps_fit(self, parameter: Tensor) -> bool:
        """Whether `maps` are all outputs, which are the parameter's first axis."""
        first = bool(self.matrix) and self.matrix[0] == 0
        sized = all(type(size) is int and size > 0 for size in self.maps)
        return not self.maps or (first and sized and sum(self.maps) == len(parameter))


Table = Mapping[str, Role]
Layer = TypeVar("Layer", nn.Linear, nn.Conv1d)

LINEAR = Role(matrix=(0, 1), decay=True)
EMBEDDING = Role(embedding=True)
BIAS = Role(bias=True)
OTHER = Role()  # a scale, a decay rate, a mix, …
OUT_IN = Role(matrix=(1, 2), decay=True)  # a stack of matrices (…, out, in)
IN_OUT = Role(matrix=(2, 1), decay=True)

# Keys are patterns of parameter names. Matrices stored as one (a recurrent net's gates; queries,
# keys and values) count as one, but for what `joint` marks.
RECURRENT: Table = {"weight_*": LINEAR, "bias_*": BIAS}
NORM: Table = {"weight": OTHER, "bias": BIAS}
TORCH: dict[type[nn.Module], Table] = {
    nn.Linear: {"weight": LINEAR},
    nn.Conv1d: {"weight": Role((0, 1, 2), decay=True)},
    nn.Conv2d: {"weight": Role((0, 1, 2, 3), decay=True)},
    nn.Conv3d: {"weight": Role((0, 1, 2, 3, 4), decay=True)},
    nn.ConvTranspose1d: {"weight": Role((1, 0, 2), decay=True)},
    nn.ConvTranspose2d: {"weight": Role((1, 0, 2, 3), decay=True)},
    nn.ConvTranspose3d: {"weight": Role((1, 0, 2, 3, 4), decay=True)},
    nn.RNNBase: RECURRENT,
    nn.RNNCellBase: RECURRENT,
    nn.MultiheadAttention: {
        "*_proj_weight": LINEAR,
        "in_proj_bias": BIAS,
        "bias_[kv]": OTHER,
    },
    nn.Embedding: {"weight": EMBEDDING},
    nn.EmbeddingBag: {"weight": EMBEDDING},
    nn.LayerNorm: NORM,
    nn.RMSNorm: NORM,
}
# By package, then by pattern of the class name; the first match of both names counts.
LIBRARIES: dict[str, dict[str, Table]] = {
    "transformers": {
        "Conv1D": {"weight": Role(matrix=(1, 0), decay=True)},
        # Mixtures of experts. Three types multiply by (in, out).
        "AriaExperts": {"*_proj": IN_OUT},
        "GptOssExperts": {"*_proj": IN_OUT, "*_proj_bias": OTHER},
        "Llama4TextExperts": {"*_proj": IN_OUT},
        "*Experts": {"*_proj": OUT_IN, "weight": OUT_IN},
        "*Router": {"weight": LINEAR},
        "Ernie4_5_MoeStatics": {"e_score_correction_bias": OTHER},
        # State spaces and other recurrences.
        "Zamba*": {"[xd]*_proj_weight": OUT_IN, "dt_proj_bias": OTHER, "D": OTHER, "A_log": OTHER},
        "RecurrentGemmaRglru": {"*_gate_weight": IN_OUT, "*_gate_bias": OTHER},
        "Rwkv*": {"time_mix_*": OTHER},
        "*": {"A_log": OTHER, "position_bias": OTHER},
        # Hyper-connections, relative positions, residuals by attention.
        "*HyperConnection": {"fn": LINEAR},
        "*HyperHead": {"hc_fn": LINEAR},
        "Inkling*": {
            "proj": Role(matrix=(1, 0), decay=True),
            "static_weight": OTHER,
            "query": OTHER,
            "scale": OTHER,
        },
        "CpmAnt*": {"relative_attention_bias": EMBEDDING},
    },
}


def roles(model: nn.Module) -> dict[str, Role | None]:
    """The role of each parameter by name. None: unmarked, and not a vector.

    A shared parameter is an embedding if one of its modules says so; else the first module with a
    role decides. `model.head`, if it exists, is the output.
    Raises ValueError for a mark that does not fit.
    """
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    found: dict[str, Role | None] = dict.fromkeys(names.values())
    for path, module in model.named_modules():
        _require_marks_fit(path, module)
        for own, parameter in module.named_parameters(recurse=False):
            name = names[id(parameter)]
            role, before = _role(module, own, parameter), found[name]
            if before is None or (role is not None and role.embedding):
                found[name] = role
    head = getattr(model, "head", None)
    for parameter in head.parameters() if isinstance(head, nn.Module) else ():
        name = names[id(parameter)]
        if (role := found[name]) is not None:
            found[name] = replace(role, output=True)
    return found


def joint(layer: Layer, maps: Sequence[int]) -> Layer:
    """Mark a linear map or convolution as several of the same input, computed as one: their weights
    lie one below the other, such as each head's queries, keys and values. What takes a matrix as a
    whole, as Muon does, may take each by itself. Where that would be more work and gains nothing,
    as with a recurrent net's gates, they stay one.

    maps: the outputs of each.
    """
    role = _role(layer, "weight", layer.weight)
    assert role is not None
    marked: Any = layer
    marks = getattr(layer, "parameter_roles", {})
    marked.parameter_roles = marks | {"weight": replace(role, maps=tuple(maps))}
    return layer


def matrices(weight: Tensor, role: Role) -> list[Tensor]:
    """Views of the matrices in the weight, output axis first."""
    order = [axis - role.stack(weight) for axis in role.matrix]
    return [matrix.permute(order) for matrix in unstacked(weight, role)]


def unstacked(weight: Tensor, role: Role) -> Sequence[Tensor]:
    """Views of the matrices in the weight, axes as stored."""
    stack = role.stack(weight)
    return weight.flatten(0, stack - 1).unbind() if stack else [weight]


def _role(module: nn.Module, name: str, parameter: Tensor) -> Role | None:
    marks: Table = getattr(module, "parameter_roles", {})
    if name in marks:
        return marks[name]
    for cls in type(module).__mro__:
        tables = [TORCH[cls]] if cls in TORCH else []
        package = LIBRARIES.get(cls.__module__.partition(".")[0], {})
        tables += [table for kind, table in package.items() if fnmatchcase(cls.__name__, kind)]
        for table in tables:
            for pattern, role in table.items():
                if fnmatchcase(name, pattern) and len(role.matrix) <= parameter.dim():
                    return role
    if parameter.dim() >= 2:
        return None
    return BIAS if name == "bias" else OTHER


def _require_marks_fit(path: str, module: nn.Module) -> None:
    marks: Table = getattr(module, "parameter_roles", {})
    for name, role in marks.items():
        where = f"{path}.{name}" if path else name
        if not hasattr(module, name):
            raise ValueError(f"parameter_roles of {type(module).__name__}: there is no {where}")
        parameter = getattr(module, name)
        if parameter is None:  # a bias that is left out, say
            continue
        if not role.fits(parameter):
            raise ValueError(
                f"parameter_roles of {type(module).__name__}: matrix={role.matrix} are not the "
                f"last axes of {where}, which has {parameter.dim()}"
            )
        if not role.maps_fit(parameter):
            raise ValueError(
                f"parameter_roles of {type(module).__name__}: maps={role.maps} are not the "
                f"{len(parameter)} outputs of {where}, in its first axis"
            )
