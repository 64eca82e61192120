"""What holds for any input: of the sampler, the windows of evaluation, schedules, tokenizers,
checkpoints and the command line."""

from __future__ import annotations

import itertools
import math
import tempfile
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import assume, example, given

from harness.data.assets import Assets
from harness.data.batches import draw_batch
from harness.data.corpus import TextFile
from harness.data.dataset import prepare
from harness.evaluation.score import resolve_stride, windows
from harness.runs import checkpoint
from harness.runs.checkpoint import StepCheckpoint
from harness.training import schedules
from harness.training.schedules import (
    Constant,
    Cosine,
    InverseSqrt,
    Linear,
    Schedule,
    StableDecay,
    Step,
)
from tests.trying import tried
from zoo_tokenizers import Tokenizer
from zoo_tokenizers.bytes import Bytes
from zoo_tokenizers.characters import Characters

# The sampler


@given(
    length=st.integers(2, 60),
    share=st.floats(0, 1),
    rows=st.integers(1, 8),
    seed=st.integers(0, 2**63 - 1),
    step=st.integers(0, 2**64 - 1),
)
@tried(100)
def test_a_batch_is_made_of_stretches_of_its_split(
    length: int, share: float, rows: int, seed: int, step: int
) -> None:
    """No token from outside, targets one on from inputs: each token here is its own place."""
    seq_len = 1 + int(share * (length - 2))
    inputs, targets = draw_batch(np.arange(length, dtype=np.uint8), seed, step, rows, seq_len)
    assert inputs.shape == targets.shape == (rows, seq_len)
    assert (inputs[:, 1:] == inputs[:, :-1] + 1).all()
    assert (targets == inputs + 1).all()
    assert inputs.min() >= 0
    assert targets.max() < length


@given(
    length=st.integers(2, 40),
    seq_len=st.integers(1, 39),
    seed=st.integers(0, 2**63 - 1),
    step=st.integers(0, 2**60),
)
@example(length=2, seq_len=1, seed=0, step=0)
@example(length=40, seq_len=1, seed=0, step=0)
@tried(100)
def test_every_offset_is_reached(length: int, seq_len: int, seed: int, step: int) -> None:
    """First and last included. (To miss one of n in 40 n draws has probability below n e^-40.)"""
    assume(seq_len < length)
    offsets = length - seq_len
    inputs, _ = draw_batch(np.arange(length), seed, step, 40 * offsets, seq_len)
    assert set(inputs[:, 0].tolist()) == set(range(offsets))


@given(seed=st.integers(0, 2**63 - 1), step=st.integers(0, 2**64 - 2))
@example(seed=0, step=2**63)  # where the batches begin that batch normalization is measured on
@tried(100)
def test_each_step_has_a_batch_of_its_own(seed: int, step: int) -> None:
    ids = np.arange(2**20)
    one, next_one = (draw_batch(ids, seed, each, 8, 1)[0] for each in (step, step + 1))
    assert not one.equal(next_one)


# The windows of evaluation


@given(targets=st.integers(1, 300), block=st.integers(1, 80), stride=st.none() | st.integers(1, 80))
@example(targets=80, block=80, stride=80)
@example(targets=81, block=80, stride=80)
@example(targets=1, block=1, stride=None)
@tried(500)
def test_windows_score_each_token_once(targets: int, block: int, stride: int | None) -> None:
    """In order, with all the context that the stride leaves them."""
    assume(stride is None or stride <= block)
    moved = resolve_stride(block, stride)
    found = windows(targets, block, moved)
    length = min(block, targets)
    scored = [at for start, new in found for at in range(start + length - new, start + length)]
    assert scored == list(range(targets))
    for start, new in found:
        assert 0 <= start <= targets - length
        assert 1 <= new <= length
    for _, new in found[1:]:
        assert new <= moved
        assert length - new >= block - moved


# Schedules


SCHEDULES = {
    Constant: {},
    Cosine: {"floor": st.floats(0, 1)},
    Linear: {"floor": st.floats(0, 1)},
    StableDecay: {"floor": st.floats(0, 1), "decay": st.floats(0, 0.5)},
    Step: {
        "at": st.lists(st.floats(0, 1, exclude_max=True), max_size=3),  # shares of the budget
        "factor": st.floats(0.01, 1),
    },
    InverseSqrt: {},
}


def subclasses(cls: type) -> set[type]:
    return {cls, *(inner for each in cls.__subclasses__() for inner in subclasses(each))}


def test_every_schedule_is_tried() -> None:
    public = {each for each in subclasses(Schedule) if each.__module__ == schedules.__name__}
    assert {each for each in public if each.__name__[0] != "_"} - {Schedule} == set(SCHEDULES)


@pytest.mark.parametrize("kind", SCHEDULES, ids=lambda kind: kind.__name__)
@given(data=st.data())
@tried(100)
def test_a_schedule_rises_to_its_peak_and_never_again(kind: type[Schedule], data: Any) -> None:
    total = data.draw(st.integers(1, 10**9) | st.floats(1e-3, 1e18), label="total")
    warmup = data.draw(st.floats(1e-6, 0.5), label="warmup")
    start = data.draw(st.floats(0, 1), label="warmup_start")
    more = {name: data.draw(values, label=name) for name, values in SCHEDULES[kind].items()}
    made = kind(total, warmup=warmup, warmup_start=start, **more)
    shares = sorted(data.draw(st.lists(st.floats(0, 1), min_size=2, max_size=9), label="shares"))
    spent = [share * total for share in shares]
    factors = [made(each) for each in spent]
    assert all(0 <= factor <= 1 + 1e-9 and math.isfinite(factor) for factor in factors)
    assert math.isclose(made(0), start, abs_tol=1e-12)
    rising = [factor for each, factor in zip(spent, factors, strict=True) if each < made.warmup]
    falling = [factor for each, factor in zip(spent, factors, strict=True) if each >= made.warmup]
    assert all(a <= b + 1e-12 for a, b in itertools.pairwise(rising))
    assert all(a >= b - 1e-12 for a, b in itertools.pairwise(falling))
    if "floor" in more and (kind is not StableDecay or more["decay"] > 0):
        assert math.isclose(made(total), more["floor"], abs_tol=1e-6)


# Tokenizers


SCALARS = st.characters(exclude_categories=["Cs"])


@given(train=st.text(SCALARS, min_size=1, max_size=60), rest=st.text(SCALARS, max_size=20))
@tried(60)
def test_a_split_comes_back_and_every_byte_is_counted(train: str, rest: str) -> None:
    """Known characters from their ids, unknown ones by number; nothing is learnt from the rest."""
    for tokenizer in (Characters(), Bytes()):
        tokenizer.fit([train])
        before = tokenizer.digest, tokenizer.vocab_size
        for text in (train, rest):
            ids, unknown = tokenizer.encode_known(text)
            assert tokenizer.decode(ids) == "".join(c for c in text if c not in unknown)
            lost = sum(len(character.encode()) * count for character, count in unknown.items())
            assert int(tokenizer.token_bytes[ids].sum()) + lost == len(text.encode())
            assert not len(ids) or int(max(ids)) < tokenizer.vocab_size
        assert (tokenizer.digest, tokenizer.vocab_size) == before


@given(content=st.binary(min_size=40, max_size=400), cut=st.integers(1, 8))
@tried(30)
def test_no_token_comes_from_outside_its_split(content: bytes, cut: int) -> None:
    shares = [cut / 10, (9 - cut) / 20 + 0.05, (9 - cut) / 20 + 0.05]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "text"
        path.write_bytes(content)
        tokenizer: Tokenizer = Bytes()
        dataset = prepare(TextFile(str(path), shares), tokenizer, Assets((), Path(folder)))
        parts = [bytes(np.asarray(part.ids)) for part in (dataset.train, dataset.val, dataset.test)]
        assert b"".join(parts) == content
        assert [len(part) for part in parts] == [
            part.bytes for part in (dataset.train, dataset.val, dataset.test)
        ]


# Checkpoints


DTYPES = [
    torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.uint8,
    torch.bool, torch.complex64,
]  # fmt: skip


@st.composite
def tensors(draw: st.DrawFn) -> torch.Tensor:
    """Of any bits: NaN and infinity among them."""
    shape = draw(st.lists(st.integers(0, 4), max_size=3))
    dtype = draw(st.sampled_from(DTYPES))
    size = math.prod(shape) * torch.empty(0, dtype=dtype).element_size()
    if not size:
        return torch.empty(shape, dtype=dtype)
    content = bytearray(draw(st.binary(min_size=size, max_size=size)))
    if dtype == torch.bool:
        content = bytearray(byte & 1 for byte in content)
    return torch.frombuffer(content, dtype=dtype).reshape(shape)


STATES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | tensors(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=5) | st.integers(0, 99), inner, max_size=3)
    ),
    max_leaves=8,
)


def same(a: Any, b: Any) -> bool:
    """Bit for bit."""
    if type(a) is not type(b):
        return False
    if isinstance(a, torch.Tensor):
        if (a.shape, a.dtype) != (b.shape, b.dtype):
            return False
        return a.reshape(-1).view(torch.uint8).equal(b.reshape(-1).view(torch.uint8))
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b or (a != a and b != b)


@given(state=STATES, step=st.integers(0, 10**9))
@tried(40)
def test_a_checkpoint_comes_back_bit_for_bit(state: Any, step: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        saved = StepCheckpoint(
            step=step, model={"state": state}, tokenizer="", corpus="", settings={},
            optimizer={}, scaler={}, progress={}, guard={},
        )  # fmt: skip
        checkpoint.save(folder, saved, keep=[])
        back = checkpoint.load(folder, StepCheckpoint)
        assert back is not None
        assert back.step == step
        assert same(back.model["state"], state)
        assert not same([back.model["state"], 0], [state, 1])
