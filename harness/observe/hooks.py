"""Every layer's output, without a line of code in the models.

Forward hooks see the modules, a TorchFunctionMode sees nonlinearities and attention, which are
mostly functions. Nothing is changed, and no random number is drawn.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from harness.observe.quantities import attention_entropy, entropy_of_weights
from zoo.language_model import LanguageModel

SATURATED = 0.97  # of tanh, and of sigmoid rescaled to ±1
NEAR_ZERO = 0.01  # for GELU and SiLU, which never reach zero


@dataclass(frozen=True)
class Layer:
    """name: of a module, or of a function called in one ("blocks.0.feed_forward.gelu"); the second
    call in a forward pass ends in .2. kind: the nonlinearity, if it is one. block: whether it is in
    a ModuleList."""

    name: str
    kind: str | None
    block: bool


@dataclass(frozen=True)
class FlatRegion:
    """Outputs of a nonlinearity with (almost) no gradient: `saturation`, at the ends of its range,
    or `inactive`, at zero."""

    name: str
    contains: Callable[[Tensor], Tensor]


_ZERO = FlatRegion("inactive", lambda y: y == 0)
_NEARLY_ZERO = FlatRegion("inactive", lambda y: y.abs() <= NEAR_ZERO)
_ONE = FlatRegion("saturation", lambda y: y.abs() > SATURATED)
_ZERO_OR_ONE = FlatRegion("saturation", lambda y: (2 * y - 1).abs() > SATURATED)
KINDS: dict[str, FlatRegion | None] = {
    "relu": _ZERO,
    **dict.fromkeys(("gelu", "silu", "mish"), _NEARLY_ZERO),
    **dict.fromkeys(("tanh", "hardtanh"), _ONE),
    **dict.fromkeys(("sigmoid", "hardsigmoid"), _ZERO_OR_ONE),
    **dict.fromkeys(("leaky_relu", "elu"), None),
}
"""The functions observed as nonlinearities. None: no flat region."""


@contextmanager
def hook_forward(
    model: LanguageModel,
    on_output: Callable[[Layer, Tensor], None],
    on_attention: Callable[[str, Tensor], None] | None = None,
) -> Iterator[None]:
    """Inside, each forward pass calls `on_output` with every layer's output, in order, and at the
    end with the features, if they are what the call returns.

    on_attention: called with a module's name and its attention entropies, (B, H, T) in nats.
    """
    tracer = _Tracer(model, on_output, on_attention)
    in_pass = ExitStack()

    def begin(module: nn.Module, arguments: Any) -> None:
        in_pass.enter_context(tracer.forward_pass())

    def end(module: nn.Module, arguments: Any, options: dict[str, Any], output: Any) -> None:
        in_pass.close()
        if options.get("return_features") and output is not None:
            tracer.on_output(Layer("features", None, block=False), output)

    with ExitStack() as stack:
        for name, module in model.named_modules():
            if module is not model:
                before, after = tracer.hooks(name, module)
                stack.callback(module.register_forward_pre_hook(before).remove)
                stack.callback(module.register_forward_hook(after).remove)
        stack.callback(model.register_forward_pre_hook(begin).remove)
        # Also called when the forward pass raises; its output is then None.
        ending = model.register_forward_hook(end, with_kwargs=True, always_call=True)
        stack.callback(ending.remove)
        yield


@dataclass
class _Scope:
    """A module whose forward is running."""

    name: str
    kind: str | None
    width: int | None = None
    time: int | None = None
    channels: int | None = None  # of a head, of the last scores


class _Tracer:
    """Keeps a stack of the modules whose forward is running."""

    def __init__(
        self,
        model: LanguageModel,
        on_output: Callable[[Layer, Tensor], None],
        on_attention: Callable[[str, Tensor], None] | None,
    ) -> None:
        self.on_output = on_output
        self._on_attention = on_attention
        self._scopes: list[_Scope] = []
        self._calls: Counter[str] = Counter()
        self._blocks = {
            id(child)
            for module in model.modules()
            if isinstance(module, nn.ModuleList)
            for child in module
        }

    @contextmanager
    def forward_pass(self) -> Iterator[None]:
        self._scopes = [_Scope("", None)]
        self._calls.clear()
        with _FunctionCalls(self._on_call):
            yield

    def hooks(self, name: str, module: nn.Module) -> tuple[Callable[..., None], ...]:
        kind, is_block = _kind_of_module(module), id(module) in self._blocks
        silent = isinstance(module, (nn.Identity, nn.Dropout))

        def before(module: nn.Module, inputs: tuple[Any, ...]) -> None:
            scope = _Scope(name, kind)
            if inputs and isinstance(inputs[0], Tensor) and inputs[0].dim() > 1:
                scope.time, scope.width = inputs[0].shape[-2:]
            self._scopes.append(scope)

        def after(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            self._scopes.pop()
            first = output[0] if isinstance(output, tuple) and output else output
            if isinstance(first, Tensor) and not silent:
                self.on_output(Layer(self._numbered(name), kind, is_block), first)

        return before, after

    def _on_call(self, name: str, arguments: tuple[Any, ...], options: Any, result: Any) -> None:
        scope = self._scopes[-1]
        if name in KINDS and scope.kind is None:
            place = self._numbered(f"{scope.name}.{name}".lstrip("."))
            self.on_output(Layer(place, name, block=False), result)
        elif name == "baddbmm":  # queries by keys, where attention is computed by its parts
            scope.channels = arguments[1].shape[-1]
        elif self._on_attention is not None and isinstance(result, Tensor) and result.dim() == 4:
            if name == "scaled_dot_product_attention":
                scope.channels = result.shape[-1]
                entropy_BHT = attention_entropy(*arguments, **options)
            elif name == "softmax":
                entropy_BHT = entropy_of_weights(result)
            else:
                return
            self._on_attention(scope.name, _fold_segments(entropy_BHT, scope))

    def _numbered(self, name: str) -> str:
        self._calls[name] += 1
        return name if self._calls[name] == 1 else f"{name}.{self._calls[name]}"


class _FunctionCalls(TorchFunctionMode):
    """Calls back after every torch function called inside it."""

    def __init__(self, on_call: Callable[[str, tuple[Any, ...], Any, Any], None]) -> None:
        super().__init__()
        self._on_call = on_call

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        self._on_call(getattr(func, "__name__", "").rstrip("_"), args, kwargs or {}, result)
        return result


def _kind_of_module(module: nn.Module) -> str | None:
    """By its class name: nn.ReLU, but also NewGELUActivation and the like in transformers. A module
    with children or parameters is not a nonlinearity, though it may call one."""
    if isinstance(module, nn.RNN):
        return module.nonlinearity
    if next(module.children(), None) is not None or next(module.parameters(), None) is not None:
        return None
    name = type(module).__name__.lower().removesuffix("activation")
    name = {"leakyrelu": "leaky_relu", "relusquared": "relu"}.get(name, name)
    return name if name in KINDS else "gelu" if name.endswith("gelu") else None


def _fold_segments(entropy_BHT: Tensor, scope: _Scope) -> Tensor:
    """Attention within K segments has heads of shape (B, H·K, T / K, D): back to (B, H, T)."""
    heads = scope.width // scope.channels if scope.width and scope.channels else 0
    has_segments = scope.time is not None and entropy_BHT.shape[2] < scope.time
    if not has_segments or not heads or entropy_BHT.shape[1] % heads:
        return entropy_BHT
    return entropy_BHT.unflatten(1, (heads, -1)).flatten(2)
