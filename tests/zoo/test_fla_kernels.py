"""flash-linear-attention's kernels in the place of ours: the same memory, where they can compute.

Without a GPU a stand-in has their names, layouts and equations (version 0.5.2, the docstrings and
naive forms in fla/ops); with one, and the package, its own kernels are compared.
"""

from __future__ import annotations

import importlib.util
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from harness.common.errors import UsageError
from tests.zoo_models import fresh, node, random_ids, randomize
from zoo.language_model import LanguageModel
from zoo.layers import fla_kernels, matrix_memory

B, H, T, N, D = 2, 3, 150, 4, 5
MODELS = ("mamba2", "gated_deltanet", "gated_deltanet_hybrid", "mlstm", "rwkv7")


def _simple_gla(q: Tensor, k: Tensor, v: Tensor, g: Tensor, scale: float) -> tuple[Tensor, None]:
    """S = e^g·S + kᵀ v, o = scale·q·S; all (B, T, H, …)."""
    return _loop(
        lambda s, t: g[:, t].exp()[..., None, None] * s + k[:, t, :, :, None] * v[:, t, :, None],
        q * scale, v,
    )  # fmt: skip


def _gated_delta_rule(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, scale: float
) -> tuple[Tensor, None]:
    """S = e^g·S, then S + kᵀ (beta·(v - k·S))."""

    def step(s: Tensor, t: int) -> Tensor:
        s = g[:, t].exp()[..., None, None] * s
        found = (k[:, t, :, :, None] * s).sum(-2)
        return s + k[:, t, :, :, None] * (beta[:, t, :, None] * (v[:, t] - found))[..., None, :]

    return _loop(step, q * scale, v)


def _rwkv7(
    r: Tensor, w: Tensor, k: Tensor, v: Tensor, a: Tensor, b: Tensor, scale: float
) -> tuple[Tensor, None]:
    """S = e^w·S + kᵀ v + bᵀ (a·S)."""

    def step(s: Tensor, t: int) -> Tensor:
        found = (a[:, t, :, :, None] * s).sum(-2)
        kept = w[:, t].exp()[..., None] * s + k[:, t, :, :, None] * v[:, t, :, None]
        return kept + b[:, t, :, :, None] * found[..., None, :]

    return _loop(step, r * scale, v)


def _loop(step: Any, q: Tensor, v: Tensor) -> tuple[Tensor, None]:
    batch, time, heads, keys = q.shape
    state, read = v.new_zeros(batch, heads, keys, v.shape[-1]), []
    for t in range(time):
        state = step(state, t)
        read.append((q[:, t, :, :, None] * state).sum(-2))
    return torch.stack(read, 1), None


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The stand-in's kernels that were called."""
    called: list[str] = []
    kernels = {
        "simple_gla": ("chunk_simple_gla", _simple_gla),
        "gated_delta_rule": ("chunk_gated_delta_rule", _gated_delta_rule),
        "rwkv7": ("chunk_rwkv7", _rwkv7),
    }
    package = ModuleType("fla")
    package.__spec__ = ModuleSpec("fla", None)
    monkeypatch.setitem(sys.modules, "fla", package)
    monkeypatch.setitem(sys.modules, "fla.ops", ModuleType("fla.ops"))
    for folder, (name, kernel) in kernels.items():

        def watched(kernel: Any = kernel, name: str = name, **inputs: Any) -> tuple[Tensor, None]:
            called.append(name)
            assert all(x.is_contiguous() for x in inputs.values() if isinstance(x, Tensor))
            out: tuple[Tensor, None] = kernel(**inputs)
            return out

        module = ModuleType(f"fla.ops.{folder}")
        setattr(module, name, watched)
        monkeypatch.setitem(sys.modules, f"fla.ops.{folder}", module)
    monkeypatch.setattr(fla_kernels, "can_compute", lambda value: True)
    return called


def _inputs(dtype: torch.dtype, device: str = "cpu") -> dict[str, list[Tensor]]:
    """The arguments of each memory, but for the state."""
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.randn(B, H, T, *shape, generator=generator, dtype=torch.float64)

    q, k, v, log_decay, beta = random(N), random(N), random(D), random(), random()
    log_decay, k = F.logsigmoid(log_decay + 3), F.normalize(k, dim=-1)
    channels = -torch.exp(torch.tensor(-0.5)) * random(N).sigmoid()
    found = {
        "decaying_memory": [q[:, :1], k[:, :1], v, log_decay],
        "gated_delta_memory": [q, k, v, log_decay, beta.sigmoid()],
        "generalized_delta_memory": [
            q, channels, random(N), v, k, k * random(N).sigmoid(),
        ],
    }  # fmt: skip
    return {name: [x.to(device, dtype) for x in inputs] for name, inputs in found.items()}


@pytest.mark.parametrize("name", _inputs(torch.float64))
def test_the_same_memory(name: str, calls: list[str]) -> None:
    inputs = [x.requires_grad_() for x in _inputs(torch.float64)[name]]
    memory = getattr(matrix_memory, name)
    ours, theirs = memory(*inputs, None)[0], memory(*inputs, None, by="fla")[0]
    assert len(calls) == 1
    torch.testing.assert_close(theirs, ours)
    gradients = [torch.autograd.grad(y.square().sum(), inputs) for y in (ours, theirs)]
    torch.testing.assert_close(gradients[1], gradients[0])


@pytest.mark.parametrize("name", MODELS)
def test_a_model_by_either_is_the_same(name: str, calls: list[str]) -> None:
    def built(recurrence: str) -> LanguageModel:
        return randomize(fresh(node(name) | {"recurrence": recurrence})).double().eval()

    ours, theirs = built("torch"), built("fla")
    theirs.load_state_dict(ours.state_dict())
    ids_BT = random_ids(2, 20)
    expected = ours(ids_BT)
    assert not calls
    torch.testing.assert_close(theirs(ids_BT), expected)
    assert calls
    calls.clear()
    cache = theirs.init_cache(2)
    torch.testing.assert_close(theirs(ids_BT, cache), expected)  # with a state by torch
    assert not calls


@pytest.mark.parametrize("name", MODELS)
def test_every_recurrent_layer_is_theirs(name: str, calls: list[str]) -> None:
    model = fresh(node(name) | {"recurrence": "fla"}).eval()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        model(random_ids(2, 20))
    layers = [module for module in model.modules() if hasattr(module, "recurrence")]
    assert len(calls) == len(layers) > 1


@pytest.mark.parametrize(
    ("is_cuda", "autocast", "theirs"),
    [
        (True, torch.bfloat16, True),
        (True, torch.float16, False),
        (True, None, False),
        (False, torch.bfloat16, False),
    ],
)
def test_what_decides_is_where_and_in_which_precision(
    is_cuda: bool, autocast: torch.dtype | None, theirs: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not the precision of an input: some are fp32 under autocast."""
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda device: autocast is not None)
    monkeypatch.setattr(torch, "get_autocast_dtype", lambda device: autocast)
    value = SimpleNamespace(is_cuda=is_cuda, dtype=torch.float32)
    assert fla_kernels.can_compute(value) is theirs  # type: ignore[arg-type]


def test_what_is_missing_or_unknown_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match="needs the package flash-linear-attention: pip install"):
        fresh(node("rwkv7") | {"recurrence": "fla"})
    with pytest.raises(UsageError, match="recurrence=triton should be one of torch, fla"):
        fresh(node("rwkv7") | {"recurrence": "triton"})


@pytest.mark.skipif(
    not torch.cuda.is_available() or importlib.util.find_spec("fla") is None,
    reason="needs an NVIDIA GPU and flash-linear-attention",
)
@pytest.mark.parametrize("name", _inputs(torch.float64))
def test_their_own_kernels(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In bf16, against ours in float64 of the same inputs."""
    called, own = [], fla_kernels._call
    monkeypatch.setattr(
        fla_kernels, "_call", lambda *names, **inputs: called.append(names) or own(*names, **inputs)
    )
    inputs = _inputs(torch.bfloat16, "cuda")[name]
    memory = getattr(matrix_memory, name)
    exact = memory(*(x.double() for x in inputs), None)[0]
    with torch.autocast("cuda", torch.bfloat16):
        found = memory(*inputs, None, by="fla")[0].double()
    assert len(called) == 1
    assert (found - exact).norm() <= 0.02 * exact.norm()
