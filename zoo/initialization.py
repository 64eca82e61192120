"""Weight initialization by named schemes, for any architecture."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from zoo.roles import matrices, roles

STD = 0.02  # GPT-2's and BERT's


def truncated_normal_(weight: Tensor, std: float) -> Tensor:
    """Normal, cut off at two standard deviations."""
    return nn.init.trunc_normal_(weight, std=std, a=-2 * std, b=2 * std)


# Each initializes a weight in place. added: the number of maps into the same residual stream.
SCHEMES: dict[str, Callable[[Tensor, int], Tensor]] = {
    # Normal, its variance 2 / fan in (He et al. 2015, arXiv 1502.01852, equation 10).
    "kaiming": lambda weight, added: nn.init.kaiming_normal_(weight, nonlinearity="relu"),
    # Uniform, its variance 2 / (fan in + fan out) (Glorot & Bengio 2010, equation 16).
    "xavier": lambda weight, added: nn.init.xavier_uniform_(weight),
    # Normal, scaled down for maps into a residual stream (Radford et al. 2019, GPT-2, section 2.3).
    "gpt2": lambda weight, added: nn.init.normal_(weight, std=STD / math.sqrt(added)),
    # BERT's code (Devlin et al. 2019).
    "truncated_normal": lambda weight, added: truncated_normal_(weight, STD),
}


def initialize(
    model: nn.Module,
    scheme: str,
    residual: tuple[str, ...] = (),
    streams: tuple[str, ...] = ("",),
) -> None:
    """Reinitialize all linear maps, convolutions and embeddings, and set biases to zero. Norms and
    other parameters do not change (see zoo.roles).

    residual: the last name parts of the maps into a residual stream.
    streams: the submodules with a residual stream of their own; "" is the whole model.
    Fans are torch's: an embedding's fan in is its width, and matrices that are stored as one
    (queries, keys and values; a recurrent net's gates) count as one.
    Raises ValueError for an unknown scheme, and for a parameter without a role.
    """
    if scheme not in SCHEMES:
        raise ValueError(f"init={scheme} is not one of default, {', '.join(SCHEMES)}")
    added = {
        id(each.weight): len(maps)
        for stream in streams
        for maps in [residual_maps(model.get_submodule(stream), residual)]
        for each in maps
    }
    known = roles(model)
    for name, parameter in model.named_parameters():
        role = known[name]
        if role is None:
            raise ValueError(
                f"init={scheme}: {name} is unmarked, so its initialization is unknown "
                "(zoo/roles.py); use init=default"
            )
        if role.bias:
            nn.init.zeros_(parameter)
        elif role.embedding:
            SCHEMES[scheme](parameter, 1)
        elif role.matrix:
            for weight in matrices(parameter.detach(), role):
                SCHEMES[scheme](weight, added.get(id(parameter), 1))


def zero_residual_maps(model: nn.Module, residual: tuple[str, ...]) -> None:
    """Zero the maps into the residual stream, so that every block starts as the identity (Zhang et
    al. 2019, Fixup, arXiv 1901.09321, section 3).

    Raises ValueError if there are none.
    """
    maps = residual_maps(model, residual)
    if not maps:
        raise ValueError(
            f"zero_residual: {type(model).__name__} declares no maps into a residual stream"
        )
    with torch.no_grad():
        for parameter in (parameter for each in maps for parameter in each.parameters()):
            parameter.zero_()


def residual_maps(model: nn.Module, residual: tuple[str, ...]) -> list[nn.Module]:
    """The linear maps whose last name part is in `residual`; those of a layer's experts are one."""
    return [
        module
        for path, module in model.named_modules()
        if path.rpartition(".")[2] in residual
        and isinstance(getattr(module, "weight", None), nn.Parameter)
    ]
