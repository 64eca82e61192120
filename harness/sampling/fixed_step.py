"""One token's step of a model as one function: compiled on a CPU, a CUDA graph on a GPU. What a
small model's token takes is calls, which both save.

B batch, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr
from io import StringIO
from types import FunctionType
from typing import Any

import torch
from torch import Tensor

from harness.common.errors import UsageError
from harness.compute.compiler import one_line, try_compiler
from harness.compute.matmul import blas_for_small
from harness.compute.modes import eval_mode
from zoo.language_model import Cache, LanguageModel

# The weights are constants, packed as the products want them; kernels are called from C++; and the
# fastest product of each shape is found by trying.
OPTIONS: dict[str, Any] = {
    "freezing": True,
    "cpp_wrapper": True,
    "max_autotune": True,
    "cpp.min_chunk_size": 4096,  # elements for each thread: fewer are done before one has begun
    "autotune_num_choices_displayed": 0,
    "fx_graph_cache": False,  # what it keeps may hold weights, and goes by their shapes
}
TRIED, TRIED_LAST = 160, 8  # calls beside the model's own
CLOSE = 1e-3, 1e-3  # relative and absolute: what rounding in fp32 leaves far below
WARM_UP = 3  # calls before a capture, in which libraries allocate what they keep


class FixedStep:
    """A model's step of one token of each of so many rows, for inference mode. To make it takes
    half a minute on a CPU, less where torch's compiler has kept some of it from an earlier time.

    Of a model whose weights change it has to be made anew. Raises UsageError for a model that has
    no fixed step, where it can't be made, and if its logits are others than the model's.
    """

    @torch.inference_mode()
    def __init__(self, model: LanguageModel, rows: int) -> None:
        require_fixed_step(model)
        device = next(iter(model.parameters())).device
        self.rows = rows
        self._ids_B1 = torch.zeros(rows, 1, dtype=torch.int64, device=device)
        self._place = torch.zeros(1, dtype=torch.int64, device=device)
        cache = model.init_cache(rows)
        with eval_mode(model), blas_for_small(model), fast_writes():
            model(self._ids_B1, cache)  # some tensors of a cache come with the first token
            self._tensors = own_memory(cache.tensors)
            if device.type == "cuda":
                with torch.cuda.device(device):
                    self._run = self._captured(one_step(model))
            else:
                try_compiler("--compile", device, "leave --compile out")
                self._run = self._compiled(one_step(model))
            self._try_out(model)

    def load(self, cache: Cache) -> None:
        """Go on after this cache, which stays as it is."""
        for name, tensor in self._tensors.items():
            assert tensor.shape == cache.tensors[name].shape
            tensor.copy_(cache.tensors[name])
        self._place.fill_(cache.pos)

    def __call__(self, ids_B1: Tensor) -> Tensor:
        """The logits after one more token of each row, (B, V), in memory that the next call may
        overwrite. The caller keeps to the model's window."""
        assert ids_B1.shape == self._ids_B1.shape
        self._ids_B1.copy_(ids_B1)
        with fast_writes():
            return self._run()

    def _try_out(self, model: LanguageModel) -> None:
        """Beside the model's own calls: after one token, and to the end of a long window."""
        block_size = model.block_size or TRIED
        self._compare(model, 1, min(TRIED, block_size))
        if block_size > TRIED:
            self._compare(model, block_size - TRIED_LAST, block_size)

    def _compare(self, model: LanguageModel, first: int, end: int) -> None:
        """From the position `first` to the one before `end`, with other ids in each row."""
        rows_B1 = torch.arange(self.rows, device=self._place.device)[:, None]
        ids_BT = (rows_B1 + torch.arange(end, device=self._place.device)) % model.vocab_size
        cache = model.init_cache(self.rows)
        model(ids_BT[:, :first], cache)
        self.load(cache)
        for place in range(first, end):
            ids_B1 = ids_BT[:, place : place + 1]
            right_BV, found_BV = model(ids_B1, cache)[:, -1], self(ids_B1)
            if not torch.allclose(found_BV, right_BV, *CLOSE, equal_nan=True):
                raise UsageError(
                    f"--compile: after {place + 1} tokens the step of {type(model).__name__} gives "
                    "other logits than the model's own call; leave --compile out"
                )

    def _compiled(self, step: FunctionType) -> Callable[[], Tensor]:
        from torch._inductor import config  # torch's compiler takes a second to load

        # What a call is given is always the same, so that nothing is asked of it, which takes a
        # tenth of a small model's step. What is compiled is kept by the code: this has its own.
        own = FunctionType(step.__code__.replace(), step.__globals__, closure=step.__closure__)
        unasked: dict[str, Any] = {"guard_filter_fn": lambda guards: [False] * len(guards)}
        compiled = torch.compile(own, fullgraph=True, dynamic=False, options=unasked)
        try:
            # Not as options of the call: whether weights are constants is asked before those hold.
            # What is tried is written to stderr in any case.
            with config.patch(OPTIONS), redirect_stderr(StringIO()):
                compiled(self._ids_B1, self._place, self._tensors)
        except Exception as error:  # whatever its parts raise
            raise _not_made(error) from error
        return lambda: compiled(self._ids_B1, self._place, self._tensors)

    def _captured(self, step: FunctionType) -> Callable[[], Tensor]:
        graph, stream = torch.cuda.CUDAGraph(), torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        try:
            with torch.cuda.stream(stream):
                for _ in range(WARM_UP):
                    self._place.fill_(0)
                    step(self._ids_B1, self._place, self._tensors)
            torch.cuda.current_stream().wait_stream(stream)
            with torch.cuda.graph(graph):
                logits_BV = step(self._ids_B1, self._place, self._tensors)
        except Exception as error:  # whatever its parts raise
            raise _not_made(error) from error

        def run() -> Tensor:
            graph.replay()
            return logits_BV

        return run


def require_fixed_step(model: LanguageModel) -> None:
    """Raises UsageError for a model without one."""
    if not model.fixed_step:
        raise UsageError(
            f"--compile: a token's step of {type(model).__name__} can't be compiled once for all "
            "positions; leave --compile out"
        )


def _not_made(error: Exception) -> UsageError:
    return UsageError(
        f"--compile: a token's step could not be made ({one_line(error)}); leave --compile out"
    )


def own_memory(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Copies, each dense and in memory of its own: some of a cache are parts of others."""
    return {
        name: tensor.clone(memory_format=torch.contiguous_format)
        for name, tensor in tensors.items()
    }


@contextmanager
def fast_writes() -> Iterator[None]:
    """Without torch's deterministic algorithms: to write one place of a buffer, compiled, they copy
    it whole. What is written once comes out the same without them."""
    before = torch.get_deterministic_debug_mode()
    torch.set_deterministic_debug_mode("default")
    try:
        yield
    finally:
        torch.set_deterministic_debug_mode(before)


def one_step(model: LanguageModel) -> FunctionType:
    """A function of the present token's ids (B, 1), its place (1,) and the state to logits (B, V).
    It moves the place and the state on."""

    def step(ids_B1: Tensor, place: Tensor, tensors: dict[str, Tensor]) -> Tensor:
        cache = Cache(dict(tensors), place=place)
        logits_BV = model(ids_B1, cache)[:, -1]
        for name, tensor in tensors.items():
            if cache.tensors[name] is not tensor:
                tensor.copy_(cache.tensors[name])
        place.add_(1)
        return logits_BV

    assert isinstance(step, FunctionType)
    return step
