"""How weights begin: schemes by name, for any architecture."""

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


# Each draws a weight; `added` is how many maps like it add up along its residual stream.
SCHEMES: dict[str, Callable[[Tensor, int], Tensor]] = {
    # Normal, its variance 2 / fan in (He et al. 2015, arXiv 1502.01852, equation 10).
    "kaiming": lambda weight, added: nn.init.kaiming_normal_(weight, nonlinearity="relu"),
    # Uniform, its variance 2 / (fan in + fan out) (Glorot & Bengio 2010, equation 16).
    "xavier": lambda weight, added: nn.init.xavier_uniform_(weight),
    # Normal, and smaller for what adds up (Radford et al. 2019, GPT-2, section 2.3).
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
    """Draw the weights of all maps, convolutions and embeddings anew. Biases become zero; norms and
    whatever else is neither stay as they are (zoo.roles says what is what).

    residual: what the maps into a residual stream are called, by the last part of their names.
    streams: the parts of the model that have one, each its own; "" is the whole model.
    Fans are torch's: an embedding's fan in is its width, and matrices that are stored as one
    (queries, keys and values; a recurrent net's gates) count as one.
    Raises ValueError for a scheme that is none, and for a parameter of an unknown role.
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
                f"init={scheme}: {name} is unmarked, so how it should begin is not known "
                "(zoo/roles.py); leave init=default"
            )
        if role.bias:
            nn.init.zeros_(parameter)
        elif role.embedding:
            SCHEMES[scheme](parameter, 1)
        elif role.matrix:
            for weight in matrices(parameter.detach(), role):
                SCHEMES[scheme](weight, added.get(id(parameter), 1))


def zero_residual_maps(model: nn.Module, residual: tuple[str, ...]) -> None:
    """Zero the maps into the residual stream, so that every block begins as the identity (Zhang et
    al. 2019, Fixup, arXiv 1901.09321, section 3).

    Raises ValueError where there are none.
    """
    maps = residual_maps(model, residual)
    if not maps:
        raise ValueError(
            f"zero_residual: {type(model).__name__} declares no maps into a residual stream"
        )
    with torch.no_grad():
        for parameter in (parameter for each in maps for parameter in each.parameters()):
            parameter.zero_()


def residual_maps(model: nn.Module, residual: tuple[str, ...]) -> list[nn.Linear]:
    """The linear maps whose name's last part is one of `residual`."""
    return [
        module
        for path, module in model.named_modules()
        if isinstance(module, nn.Linear) and path.rpartition(".")[2] in residual
    ]
