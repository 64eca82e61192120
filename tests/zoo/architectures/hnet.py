"""H-Net's closed forms and mutants."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.zoo.architectures.matrix_memory import zeroed
from tests.zoo_models import Mutant
from zoo import hnet
from zoo.hnet import HNet
from zoo.language_model import Cache, LanguageModel
from zoo.layers.matrix_memory import decaying_memory

# With random weights every other token begins a chunk: as many chunks as may be needed.
UNBOUND = (
    "train.seq_len=20", "model.n_chunk=20", "model.n_layer_main=1", "model.n_layer_encoder=1",
    "model.n_layer_decoder=1", "model.n_state=8",
)  # fmt: skip


def _chunks(node: dict[str, Any]) -> int:
    n_chunk = node["n_chunk"] or math.ceil(1.5 * node["block_size"] / node["chunk_size"])
    return min(n_chunk, node["block_size"])


def _mamba2(node: dict[str, Any]) -> tuple[int, int, int]:
    """Of a block: weights of its linear maps, of its convolution, and the others."""
    C, N = node["n_embd"], node["n_state"]
    E = node["expand"] * C
    H, mixed = E // node["n_head_channels"], E + 2 * N
    return C * (E + mixed + H) + E * C, mixed * node["kernel_size"], mixed + 3 * H + C + E


def _main_linear(node: dict[str, Any]) -> int:
    D = node["n_embd_main"]
    return 4 * D * D + 3 * D * 8 * math.ceil(D / 3)


def parameters(node: dict[str, Any], V: int) -> int:
    C, D = node["n_embd"], node["n_embd_main"]
    mamba2 = (node["n_layer_encoder"] + node["n_layer_decoder"]) * sum(_mamba2(node))
    main = node["n_layer_main"] * (_main_linear(node) + 2 * D)
    router, skip, norms, widening = 2 * C * C, C * C, 2 * C + D, D - C
    return (
        V * C + mamba2 + main + router + skip + norms + widening
        + (0 if node["tie_weights"] else V * C)
    )  # fmt: skip


def forward_flops(node: dict[str, Any], V: int, T: int) -> float:
    """As many chunks as a window may have, wherever they begin. Windows of up to 64 tokens, which
    a state is handed on in one piece for."""
    C, D, N, K = node["n_embd"], node["n_embd_main"], node["n_state"], min(_chunks(node), T)
    linear, conv, _ = _mamba2(node)
    memory = T * (N + node["expand"] * C)
    mamba2 = (node["n_layer_encoder"] + node["n_layer_decoder"]) * T * (linear + conv + memory)
    main = node["n_layer_main"] * K * (_main_linear(node) + 2 * K * D)
    smooth = K * K * (1 + C)
    return 2 * (mamba2 + main + smooth + T * (3 * C * C + C * V))


def _of(model: LanguageModel) -> HNet:
    assert isinstance(model, HNet)
    return model


def _boundaries_ahead(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """A token is compared with the one behind it."""
    router = _of(model).router.forward

    def ahead(x_BTC: Tensor, cache: Cache | None, past: int) -> Tensor:
        p_BT = router(x_BTC, cache, past).roll(-1, 1)
        return torch.cat([torch.ones_like(p_BT[:, :1]), p_BT[:, 1:]], dim=1)

    _of(model).router.forward = ahead  # type: ignore[method-assign]


def _last_token_of_a_chunk(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """A chunk is what its last token is, which its first does not know: the next boundary's
    predecessor."""
    places_of = hnet.step_places

    def last(begins_BT: Tensor, most: int) -> tuple[Tensor, Tensor]:
        ends_BT = torch.cat([begins_BT[:, 1:], torch.ones_like(begins_BT[:, :1])], dim=1)
        return places_of(ends_BT, most)[0], places_of(begins_BT, most)[1]

    monkeypatch.setattr(hnet, "step_places", last)


def _the_next_chunk(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """A token is given what the main network says of the chunk behind its own."""
    main = _of(model)._main_network
    _of(model)._main_network = lambda *given: main(*given).roll(-1, 1)  # type: ignore


def _smoothed_a_chunk_late(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is kept of the past is decided by the probability of the chunk before."""

    def late(
        q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, state: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        return decaying_memory(q, k, v, log_decay.roll(1, -1), state)

    monkeypatch.setattr(hnet, "decaying_memory", late)


def _filling_smoothed(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """What fills up a row's chunks is smoothed into the state that the next call begins with."""
    places_of = hnet.step_places

    def all_real(begins_BT: Tensor, most: int) -> tuple[Tensor, Tensor]:
        places_BK, real_BK = places_of(begins_BT, most)
        return places_BK, torch.ones_like(real_BK)

    monkeypatch.setattr(hnet, "step_places", all_real)


def _rows_in_step(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """One count of chunks for all rows of a batch."""
    chunks = _of(model)._chunks

    def together(x_BTC: Tensor, p_BT: Tensor, cache: Cache | None) -> Tensor:
        y_BTC = chunks(x_BTC, p_BT, cache)
        if cache is not None:
            began_B = cache.tensors["chunks"]
            cache.tensors["chunks"] = began_B.max().expand_as(began_B).clone()
        return y_BTC

    _of(model)._chunks = together  # type: ignore[method-assign]


def _no_main_network(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    _of(model)._chunks = lambda x, p, cache: torch.zeros_like(x)  # type: ignore[method-assign]


MUTANTS = [
    Mutant("boundaries look ahead", "causality", "hnet", _boundaries_ahead, UNBOUND),
    Mutant("a chunk's last token", "causality", "hnet", _last_token_of_a_chunk, UNBOUND),
    Mutant("the next chunk", "causality", "hnet", _the_next_chunk, UNBOUND),
    Mutant("smoothed a chunk late", "split", "hnet", _smoothed_a_chunk_late, UNBOUND),
    Mutant("filling is smoothed", "split", "hnet", _filling_smoothed, UNBOUND),
    Mutant("rows in step", "split", "hnet", _rows_in_step, UNBOUND),
    Mutant("no main network", "gradient", "hnet", _no_main_network, UNBOUND),
    *(
        Mutant(f"{state} not kept", "split", "hnet", zeroed(state), UNBOUND)
        for state in ("router.key", "chunks", "smooth")
    ),
]
