"""The recurrent nets against their equations, step by step, and against torch's own modules."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from harness.common.errors import UsageError
from harness.compute.device import Compute
from harness.compute.precision import require_kernels
from tests.zoo.laws import LAWS
from tests.zoo_models import VOCAB, maker, of_each_class, random_ids, randomize
from zoo.language_model import Cache, LanguageModel
from zoo.layers.recurrence import FEW, GRULayer, LSTMLayer, RNNLayer
from zoo.recurrent import GRU, LSTM, RNN, Recurrent

NAMES = ("rnn", "gru", "lstm")
SIZES = ["model.n_embd=5", "model.n_hidden=6"]
B, T, H = 3, 11, 6
composed_once = cache(maker)
Weights = dict[str, Tensor]


def rnn_step(w: Weights, layer: int, x: Tensor, state: list[Tensor]) -> list[Tensor]:
    W, U, b, c = gates(w, layer, 1)
    return [torch.tanh(W[0] @ x + b[0] + U[0] @ state[0] + c[0])]


def gru_step(w: Weights, layer: int, x: Tensor, state: list[Tensor]) -> list[Tensor]:
    (h,) = state
    W, U, b, c = gates(w, layer, 3)
    r = torch.sigmoid(W[0] @ x + b[0] + U[0] @ h + c[0])
    z = torch.sigmoid(W[1] @ x + b[1] + U[1] @ h + c[1])
    n = torch.tanh(W[2] @ x + b[2] + r * (U[2] @ h + c[2]))
    return [(1 - z) * n + z * h]


def lstm_step(w: Weights, layer: int, x: Tensor, state: list[Tensor]) -> list[Tensor]:
    h, cell = state
    W, U, b, c = gates(w, layer, 4)
    i, f, g, o = (W[k] @ x + b[k] + U[k] @ h + c[k] for k in range(4))
    cell = torch.sigmoid(f) * cell + torch.sigmoid(i) * torch.tanh(g)
    return [torch.sigmoid(o) * torch.tanh(cell), cell]


def gates(w: Weights, layer: int, count: int) -> list[tuple[Tensor, ...]]:
    """W, U, b and c of a layer, each cut into its gates."""
    return [
        w[f"layers.{layer}.{kind}_l0"].chunk(count)
        for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    ]


STEPS = {"rnn": rnn_step, "gru": gru_step, "lstm": lstm_step}
STATES = {"rnn": ["hidden"], "gru": ["hidden"], "lstm": ["hidden", "cell"]}


def by_hand(name: str, w: Weights, ids: list[int], states: list[list[Tensor]]) -> Tensor:
    """Logits (T, V); `states`, of each layer, are left as they are after the last step."""
    logits = []
    for token in ids:
        x = w["token_embedding.weight"][token]
        for layer, state in enumerate(states):
            states[layer] = STEPS[name](w, layer, x, state)
            x = states[layer][0]
        logits.append(w["head.weight"] @ x + w["head.bias"])
    return torch.stack(logits)


@torch.no_grad()
@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("name", NAMES)
def test_equals_the_equations(name: str, layers: int) -> None:
    """From the zero state, and from one that is given; the state left behind, too."""
    model = maker(name, *SIZES, f"model.n_layer={layers}")()
    weights, ids = model.state_dict(), random_ids(B, T)
    kinds = STATES[name]
    for tensors in (
        model.init_cache(B).tensors,
        {kind: torch.randn(B, layers, H, dtype=torch.float64) for kind in kinds},
    ):
        cache = Cache(dict(tensors))
        logits = model(ids, cache)
        for row in range(B):
            states = [[tensors[kind][row, layer] for kind in kinds] for layer in range(layers)]
            expected = by_hand(name, weights, ids[row].tolist(), states)
            torch.testing.assert_close(logits[row], expected, rtol=0, atol=1e-10)
            for layer, state in enumerate(states):
                for kind, expected_H in zip(kinds, state, strict=True):
                    left = cache.tensors[kind][row, layer]
                    torch.testing.assert_close(left, expected_H, rtol=0, atol=1e-10)


@torch.no_grad()
@pytest.mark.parametrize(
    ("ours", "theirs"), [(RNN, nn.RNN), (GRU, nn.GRU), (LSTM, nn.LSTM)], ids=NAMES
)
def test_equals_torchs_module(ours: type[Recurrent], theirs: type[nn.RNNBase]) -> None:
    embedding, module, head = nn.Embedding(VOCAB, 5), theirs(5, H, 2), nn.Linear(H, VOCAB)
    for part in (embedding, module, head):
        randomize(part.double())  # type: ignore[arg-type]
    model = ours(VOCAB, n_layer=2, n_embd=5, n_hidden=H).double()
    model.token_embedding, model.head = embedding, head
    for name, weight in module.state_dict().items():
        kind, layer = name.rsplit("_l", 1)
        model.layers[int(layer)].get_parameter(f"{kind}_l0").data = weight
    ids = random_ids(B, T)
    hidden = module(embedding(ids).transpose(0, 1))[0].transpose(0, 1)
    torch.testing.assert_close(model(ids), head(hidden), rtol=0, atol=1e-10)


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("given", [True, False])
@pytest.mark.parametrize("time", [1, T])
@pytest.mark.parametrize("ours", [RNNLayer, GRULayer])
def test_gradients_are_those_of_torchs_module(
    ours: type[RNNLayer | GRULayer], time: int, given: bool, batch_first: bool
) -> None:
    """Of inputs, weights and the first state; the outputs and the last state, too."""
    layer = ours(5, H, batch_first=batch_first).double()
    theirs = ours.__base__(5, H, batch_first=batch_first).double()
    theirs.load_state_dict(layer.state_dict())
    x_BTC = torch.randn(B, time, 5, dtype=torch.float64)
    weight_BTH, weight_1BH = torch.randn(B, time, H).double(), torch.randn(1, B, H).double()
    if not batch_first:
        x_BTC, weight_BTH = x_BTC.transpose(0, 1), weight_BTH.transpose(0, 1)
    found = []
    for module in (layer, theirs):
        x = x_BTC.clone().requires_grad_()
        state = torch.ones(1, B, H, dtype=torch.float64, requires_grad=True) if given else None
        y, last = module(x, state)
        loss = (y.square() * weight_BTH).sum() + (last * weight_1BH).sum()
        wanted = [x, *module.parameters(), *([state] if state is not None else [])]
        found.append([y, last, *torch.autograd.grad(loss, wanted)])
    made_by = found[0][0].grad_fn
    own = made_by.next_functions[0][0] if batch_first else made_by
    assert "Recurrence" in own.name()
    torch.testing.assert_close(*found, rtol=0, atol=1e-12)


@pytest.mark.parametrize("option", ["nonlinearity", "num_layers", "bias", "bidirectional"])
def test_what_is_not_trained_here_is_refused(option: str) -> None:
    for layer in (RNNLayer, GRULayer):
        with pytest.raises(TypeError, match=option):
            layer(5, H, **{option: 2})


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("rows", [1, FEW, FEW + 1])
def test_a_token_by_the_cell_is_that_of_the_layer(
    rows: int, batch_first: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = LSTMLayer(5, H, batch_first=batch_first).double()
    x = torch.randn((rows, 1, 5) if batch_first else (1, rows, 5), dtype=torch.float64)
    state = tuple(torch.randn(2, 1, rows, H, dtype=torch.float64))
    cells, own = [], torch.lstm_cell

    def told(*given: Any) -> Any:
        cells.append(rows)
        return own(*given)

    monkeypatch.setattr(torch, "lstm_cell", told)
    y, (h, c) = layer(x, state)  # with gradients, and so by the layer
    assert not cells
    with torch.no_grad():
        found = layer(x, state)
        assert len(cells) == (rows <= FEW)
        torch.testing.assert_close(found, (y, (h, c)), rtol=0, atol=1e-12)
        layer(torch.cat([x, x], dim=1 if batch_first else 0), state)
    assert len(cells) == (rows <= FEW)


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("layers", [pytest.param(1, marks=pytest.mark.long), 3])
@pytest.mark.parametrize("name", of_each_class(NAMES))
def test_law_with_more_and_fewer_layers(law: str, name: str, layers: int) -> None:
    """At full width: a tanh RNN of 32 units forgets 48 tokens to the last bit."""
    LAWS[law](composed_once(name, f"model.n_layer={layers}"))


@pytest.mark.parametrize("name", NAMES)
def test_decodes_under_autocast(name: str) -> None:
    """And the state keeps the precision of the weights."""
    model = maker(name, *SIZES)().float()
    try:
        require_kernels(model, Compute(torch.device("cpu"), "bf16"), name)
    except UsageError:  # tests/compute/test_precision.py says of what
        pytest.skip("this CPU has no such kernel in bf16")
    ids = random_ids(2, 20)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        cache = model.init_cache(2)
        steps = [model(ids[:, [t]], cache) for t in range(20)]
        torch.testing.assert_close(torch.cat(steps, 1), model(ids), rtol=0.05, atol=0.1)
    assert {tensor.dtype for tensor in cache.tensors.values()} == {torch.float32}


@pytest.mark.parametrize("changed", [{"n_layer": 0}, {"n_embd": 0}, {"n_hidden": 0}])
def test_refuses(changed: dict[str, Any]) -> None:
    (name,) = changed
    with pytest.raises(ValueError, match=f"{name}=0"):
        GRU(VOCAB, **({"n_layer": 1, "n_embd": 4, "n_hidden": 4} | changed))


def test_cache_does_not_grow() -> None:
    for name in NAMES:
        model: LanguageModel = maker(name, *SIZES)()
        cache = model.init_cache(2)
        before = cache.nbytes
        with torch.no_grad():
            model(random_ids(2, 50), cache)
        assert cache.nbytes == before > 0


@pytest.mark.parametrize("kind", [RNN, GRU])
def test_the_states_are_fp32_under_autocast(kind: type[Recurrent]) -> None:
    """Where torch's kernel would cast in every step."""
    model, ids_BT = kind(VOCAB, 2, 8, 8), random_ids(2, 9)
    with torch.autocast("cpu", torch.bfloat16):
        features_BTC = model(ids_BT, return_features=True)
    assert torch.equal(features_BTC, model(ids_BT, return_features=True))
