"""A step that is compiled or captured once gives what the model's calls give, at every position."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounter

from harness.common.errors import RunFailure, UsageError
from harness.compute.device import make_deterministic
from harness.sampling import fixed_step
from harness.sampling.decode import SamplingParams, first_arrival, generate
from harness.sampling.fixed_step import FixedStep, one_step, own_memory
from tests.conftest import Ended
from tests.sampling.test_decode import GREEDY, gpt, greedy_by_hand
from tests.zoo_models import NAMES, maker, random_ids, randomize
from zoo.gpt import GPT
from zoo.language_model import Cache, LanguageModel

Command = Callable[..., Ended]

FIXED = {
    "bigram", "bow", "gated_deltanet", "gated_deltanet_hybrid", "gpt", "gpt1", "gpt3", "gpt_modern",
    "hierarchical", "llama", "mamba2", "mistral", "mlp", "mlstm", "rwkv7", "wavenet",
}  # fmt: skip
# What no file in conf/model/ has: bands as wide as the window and as narrow as can be, slopes,
# waves, no positions, shared keys; kernels of one tap; embeddings of n-grams.
MORE: dict[str, Callable[[], LanguageModel]] = {
    "bands": lambda: _gpt(bands=(1, 2, 9, 20)),
    "alibi": lambda: _gpt(positions="alibi", bands=(None, 4)),
    "sinusoidal": lambda: _gpt(positions="sinusoidal"),
    "none": lambda: _gpt(positions="none", n_kv_head=1),
    "ngrams": lambda: randomize(_gpt().add_ngrams(3, rows=101)),
    "one tap": lambda: maker("wavenet", "model.kernel_sizes=[1,3]", "model.dilations=[1,4]")(),
}


def _gpt(**options: Any) -> LanguageModel:
    return randomize(GPT(11, 9, n_layer=4, n_head=2, n_embd=8, **options).double())


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is compiled."""

    def called(self: FixedStep, step: Any) -> Callable[[], Tensor]:
        return lambda: step(self._ids_B1, self._place, self._tensors)

    monkeypatch.setattr(FixedStep, "_compiled", called)
    monkeypatch.setattr(fixed_step, "try_compiler", lambda *given: None)


def test_it_is_known_which_models_have_one() -> None:
    assert {name for name in NAMES if maker(name)().fixed_step} == FIXED


@pytest.mark.parametrize("name", sorted(FIXED | {*MORE}))
def test_one_traced_step_gives_what_the_model_gives_at_every_position(name: str) -> None:
    """After any prompt, past bands, rings and the text's beginning, the state changed in place."""
    model = (MORE.get(name) or maker(name))().eval()
    time = model.block_size or 40
    ids = random_ids(3, time, vocab_size=model.vocab_size)
    torch._dynamo.reset()
    counter = CompileCounter()
    step = torch.compile(one_step(model), backend=counter, fullgraph=True, dynamic=False)
    with torch.no_grad():
        right = model(ids)
        for prompt in (1, time // 2, time - 1):
            cache = model.init_cache(3)
            model(ids[:, :prompt], cache)
            tensors, place = own_memory(cache.tensors), torch.tensor([prompt])
            own = {key: tensor.data_ptr() for key, tensor in tensors.items()}
            for t in range(prompt, time):
                found = step(ids[:, t : t + 1], place, tensors)
                torch.testing.assert_close(found, right[:, t], rtol=0, atol=1e-12)
            assert place.item() == time
            assert {key: tensor.data_ptr() for key, tensor in tensors.items()} == own
    assert counter.frame_count == 1


@pytest.mark.parametrize("name", sorted(FIXED))
def test_greedy_texts_go_on_past_the_window_as_without(name: str, eager: None) -> None:
    model = maker(name, "train.seq_len=32")()
    prompt = random_ids(2, 5)
    step = FixedStep(model, 2)
    assert all(tensor.is_contiguous() for tensor in step._tensors.values())  # of no other a part
    for _ in range(2):  # it can be used again
        found = generate(model, prompt, 45, GREEDY, step=step)
        assert torch.equal(found, greedy_by_hand(model, prompt, 45))


def test_a_cache_that_was_loaded_stays_as_it_is(eager: None) -> None:
    model = gpt()
    step, cache = FixedStep(model, 1), model.init_cache(1)
    with torch.inference_mode():
        model(random_ids(1, 3, vocab_size=11), cache)
        before = {name: tensor.clone() for name, tensor in cache.tensors.items()}
        step.load(cache)
        step(torch.tensor([[5]]))
    assert cache.pos == 3
    assert all(torch.equal(before[name], tensor) for name, tensor in cache.tensors.items())


@pytest.mark.parametrize("name", ["megabyte", "lstm", "gpt_moe"])
def test_models_without_one_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match="can't be compiled once for all positions"):
        FixedStep(maker(name)(), 1)


@pytest.mark.parametrize("wrong_from", [1, 5, 150, 296])
def test_a_step_that_gives_other_logits_is_found_out(
    wrong_from: int, eager: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the beginning, past bands and rings, and at the end of a long window."""
    own = GPT.positions_of

    def positions_of(
        self: GPT, ids_BT: Tensor, cache: Cache | None, past: int, **other: Any
    ) -> Tensor:
        positions_T = own(self, ids_BT, cache, past)
        is_wrong = cache is not None and cache.place is not None and cache.place >= wrong_from
        return positions_T - 1 if is_wrong else positions_T

    monkeypatch.setattr(GPT, "positions_of", positions_of)
    model = GPT(11, 300, n_layer=1, n_head=1, n_embd=4).double()
    words = f"after {wrong_from + 1} tokens the step of GPT gives other logits"
    with pytest.raises(UsageError, match=words):
        FixedStep(randomize(model), 2)


def test_a_step_that_takes_one_row_for_all_is_found_out(
    eager: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def of_first(model: LanguageModel) -> Any:
        return lambda ids_B1, *rest: one_step(model)(ids_B1[:1].expand_as(ids_B1), *rest)

    monkeypatch.setattr(fixed_step, "one_step", of_first)
    with pytest.raises(UsageError, match="gives other logits"):
        FixedStep(gpt(), 2)


def test_logits_that_are_nan_are_sampling_s_own_matter(eager: None) -> None:
    model = gpt()
    torch.nn.init.constant_(model.token_embedding.weight, torch.nan)  # type: ignore[arg-type]
    step = FixedStep(model, 1)
    with pytest.raises(RunFailure, match="logits are NaN or infinite"):
        generate(model, random_ids(1, 2, vocab_size=11), 3, GREEDY, step=step)


def test_where_nothing_compiles_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*given: Any, **named: Any) -> Any:
        raise RuntimeError("no g++\nat all")

    monkeypatch.setattr(torch, "compile", lambda *given, **named: fails)
    with pytest.raises(UsageError, match=r"--compile: .*no g\+\+\); install a C\+\+ compiler"):
        FixedStep(gpt(), 1)
    monkeypatch.setattr(fixed_step, "try_compiler", lambda *given: None)
    words = r"--compile: a token's step could not be made \(RuntimeError: no g\+\+\); leave"
    with pytest.raises(UsageError, match=words):
        FixedStep(gpt(), 1)


def test_the_least_window_has_a_step(eager: None) -> None:
    model = GPT(11, 1, n_layer=1, n_head=1, n_embd=4).double()
    prompt = random_ids(1, 1, vocab_size=11)
    found = generate(model, prompt, 5, GREEDY, step=FixedStep(model, 1))
    assert torch.equal(found, generate(model, prompt, 5, GREEDY))


def test_compiled_steps_are_each_of_their_own_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is asked of a call, so that no call may find another one's code. As fast as can be is
    not asked for here: to find what is takes half a minute."""
    monkeypatch.setitem(fixed_step.OPTIONS, "max_autotune", False)
    make_deterministic()
    models = [GPT(11, 8, n_layer=1, n_head=2, n_embd=8) for _ in range(2)]
    steps = [(model, FixedStep(model, rows)) for model in models for rows in (1, 2)]
    for model, step in [*steps, *steps]:  # once more after it was used
        prompt = random_ids(step.rows, 2, vocab_size=11)
        cache = model.init_cache(step.rows)
        with torch.inference_mode():
            model(prompt, cache)
            step.load(cache)
            for _ in range(5):
                next_B1 = random_ids(step.rows, 1, vocab_size=11)
                right = model(next_B1, cache)[:, -1]
                torch.testing.assert_close(step(next_B1), right, rtol=1e-4, atol=1e-5)
    assert torch.get_deterministic_debug_mode() == 1  # as it was


@pytest.mark.long
@pytest.mark.parametrize("name", sorted(FIXED))
def test_the_fastest_code_gives_the_logits_too(name: str) -> None:
    model = maker(name)().float().eval()
    step, cache = FixedStep(model, 2), model.init_cache(2)
    with torch.inference_mode():
        model(random_ids(2, 3), cache)
        step.load(cache)
        for _ in range(12):
            next_B1 = random_ids(2, 1)
            right = model(next_B1, cache)[:, -1]
            torch.testing.assert_close(step(next_B1), right, rtol=1e-3, atol=1e-3)


class FakeGraph:
    """What a CUDA graph is, without a GPU: a replay does what was captured, in the same memory."""

    def __init__(self) -> None:
        self.captured: Callable[[], Tensor] | None = None

    def replay(self) -> None:
        assert self.captured is not None
        self.captured()


def test_a_captured_step_writes_where_it_did_when_it_was_captured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The warm-up and the capture leave nothing in the state; ids and place are read anew."""
    model = gpt()
    capturing = list[FakeGraph]()

    @contextmanager
    def graph(made: FakeGraph) -> Iterator[None]:
        capturing.append(made)
        yield
        capturing.pop()

    class Stream:
        def wait_stream(self, other: Stream) -> None:
            pass

    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext())
    for name, fake in {
        "CUDAGraph": FakeGraph, "graph": graph, "Stream": Stream, "current_stream": Stream,
        "stream": contextmanager(lambda stream: iter([None])),
    }.items():  # fmt: skip
        monkeypatch.setattr(torch.cuda, name, fake)
    own = one_step(model)
    calls = []

    def step(ids_B1: Tensor, place: Tensor, tensors: dict[str, Tensor]) -> Tensor:
        calls.append((bool(capturing), place.item()))
        logits_BV = own(ids_B1, place, tensors)
        if capturing:
            capturing[-1].captured = lambda: logits_BV.copy_(own(ids_B1, place, tensors))
        return logits_BV

    monkeypatch.setattr(fixed_step, "one_step", lambda model: step)
    monkeypatch.setattr(FixedStep, "_compiled", FixedStep._captured)
    monkeypatch.setattr(fixed_step, "try_compiler", lambda *given: None)
    prompt = random_ids(2, 5, vocab_size=11)
    found = generate(model, prompt, 30, GREEDY, step=FixedStep(model, 2))
    assert torch.equal(found, greedy_by_hand(model, prompt, 30))
    # Each call within the least window; what is captured is not computed; and then replays alone.
    assert calls == [(False, 0)] * fixed_step.WARM_UP + [(True, 1)]


def test_draws_are_those_of_torchs_multinomial() -> None:
    probabilities = torch.randn(7, 30, dtype=torch.float64).softmax(-1)
    probabilities[2, 5:] = 0
    ours, theirs = torch.Generator().manual_seed(3), torch.Generator().manual_seed(3)
    for _ in range(50):
        drawn = first_arrival(probabilities, ours)
        assert torch.equal(drawn, torch.multinomial(probabilities, 1, generator=theirs))


def test_where_no_allowed_id_can_occur_nothing_is_drawn() -> None:
    logits, text = torch.tensor([[0.0, -torch.inf]]), torch.zeros(1, 1, dtype=torch.int64)
    given = logits, text, torch.Generator()
    assert SamplingParams().draw(*given, torch.tensor([True, False])).tolist() == [[0]]
    with pytest.raises(RunFailure, match="no text can be sampled"):
        SamplingParams().draw(*given, torch.tensor([False, True]))


def test_the_command_gives_the_same_text(
    command: Command, finished_bigram: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(fixed_step.OPTIONS, "max_autotune", False)
    made, own = [], FixedStep.__call__
    monkeypatch.setattr(FixedStep, "__call__", lambda *given: made.append(1) or own(*given))
    given = ("sample", finished_bigram, "--tokens", "30", "--num-samples", "2")
    plain = command(*given)
    assert not made
    compiled = command(*given, "--compile")
    assert (compiled.code, compiled.out) == (0, plain.out)
    assert compiled.err == "note: making one function of a token's step: half a minute on a CPU\n"
    assert len(made) >= 29
    beams = command("sample", finished_bigram, "--compile", "--beams", "2")
    assert (beams.code, beams.out) == (2, "")
    assert "--compile has no meaning with --beams" in beams.err


def test_what_is_refused_prints_nothing(command: Command, train_run: Callable[..., Path]) -> None:
    run = train_run("model=lstm", "model.n_hidden=8", "train.steps=1")
    ended = command("sample", run, "--compile", "--prompt", "a")
    assert (ended.code, ended.out) == (2, "")
    assert "--compile: a token's step of LSTM can't be compiled once for all positions" in ended.err
