"""The score: exact, independent of how it is computed, comparable across tokenizers."""

from __future__ import annotations

import math
import mmap

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from harness.compute import costs as measure
from harness.compute.memory import PeakMemory
from harness.data.encoded import UNICODE_SCALARS, Split
from harness.evaluation.nats import nats_N
from harness.evaluation.score import resolve_stride, score_split, token_nats, windows
from tests.zoo.laws import CPU
from zoo.bigram import Bigram
from zoo.gpt import GPT
from zoo.language_model import Cache, LanguageModel
from zoo_tokenizers import Tokenizer
from zoo_tokenizers.bytes import Bytes
from zoo_tokenizers.characters import Characters


class Uniform(LanguageModel):
    """Knows nothing: log V for every token."""

    def __init__(self, vocab_size: int, block_size: int | None = None) -> None:
        super().__init__()
        self.vocab_size, self.block_size, self.receptive_field = vocab_size, block_size, 1
        self.head = torch.nn.Identity()

    def features(self, ids_BT: torch.Tensor, cache: Cache | None = None) -> torch.Tensor:
        self.advance(ids_BT, cache)
        return torch.zeros(*ids_BT.shape, self.vocab_size)


def split_of(text: str, tokenizer: Tokenizer) -> Split:
    ids, unknown = tokenizer.encode_known(text)
    return Split(ids, len(text.encode()), dict(unknown))


@given(st.integers(1, 300), st.integers(1, 40), st.data())
def test_windows_score_each_token_once(targets: int, block_size: int, data: st.DataObject) -> None:
    stride = data.draw(st.integers(1, block_size))
    plan = windows(targets, block_size, stride)
    length = min(block_size, targets)
    scored = [start + length - 1 - k for start, new in plan for k in reversed(range(new))]
    assert scored == list(range(targets))
    assert all(start >= 0 and start + length <= targets for start, _ in plan)
    # Half a window of context at least, from the second window on, with the default stride.
    for _, new in windows(targets, block_size, resolve_stride(block_size, None))[1:]:
        assert length - new >= block_size // 2


@pytest.mark.parametrize("stride", [0, 9, -1])
def test_a_stride_that_would_leave_tokens_out_is_refused(stride: int) -> None:
    with pytest.raises(ValueError, match="stride"):
        resolve_stride(8, stride)


@pytest.mark.parametrize("block_size", [None, 8])
@pytest.mark.parametrize("text", ["To be, or not to be", "Ça va? Ähm… 日本 🎭", "ab"])
def test_a_uniform_model_has_the_entropy_of_its_vocabulary(
    text: str, block_size: int | None
) -> None:
    split = split_of(text, Bytes())
    assert score_split(Uniform(256, block_size), split, Bytes(), CPU).bits_per_byte == (
        pytest.approx(8, rel=1e-6)
    )
    characters = Characters()
    characters.fit(text)
    score = score_split(
        Uniform(characters.vocab_size, block_size), split_of(text, characters), characters, CPU
    )
    scored_bytes = len(text.encode()) - len(text[0].encode())
    expected = math.log2(characters.vocab_size) * (len(text) - 1) / scored_bytes
    assert score.bits_per_byte == pytest.approx(expected, rel=1e-6)
    assert score.bytes == scored_bytes
    assert score.tokens == len(text) - 1


def test_unknown_characters_are_paid_for() -> None:
    """By their place and their code point: the score covers every byte of the split."""
    characters = Characters()
    characters.fit("abc")
    split = split_of("abcéab日c", characters)
    assert split.unknown == {"é": 1, "日": 1}
    score = score_split(Uniform(3), split, characters, CPU)
    assert score.unknown == 2
    assert score.bytes == len("abcéab日c".encode()) - 1
    beside = 2 * (math.log(8) + math.log(UNICODE_SCALARS))
    assert score.nats == pytest.approx(5 * math.log(3) + beside, rel=1e-6)


def test_a_lossy_tokenizer_has_no_bits_per_byte() -> None:
    class Lossy(Bytes):
        lossless = False

    score = score_split(Uniform(256), split_of("text", Bytes()), Lossy(), CPU)
    assert score.bits_per_byte is None
    assert score.nats_per_token == pytest.approx(math.log(256), rel=1e-6)
    assert score.summary()["bits_per_byte"] is None


def test_streaming_equals_one_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    from harness.evaluation import score as metrics

    monkeypatch.setattr(metrics, "STREAM_CHUNK", 7)
    model = Bigram(11).double()
    ids = np.random.default_rng(0).integers(0, 11, 50)
    whole = model(torch.from_numpy(ids[:-1])[None])
    expected = nats_N(whole[0], torch.from_numpy(ids[1:])).detach().numpy()
    np.testing.assert_allclose(token_nats(model, ids, CPU), expected, atol=1e-12)


def test_a_shorter_stride_gives_more_context_and_each_token_once() -> None:
    """With stride 1 every token is predicted from a full window: checked token by token."""
    torch.manual_seed(0)
    model = GPT(vocab_size=11, block_size=6, n_layer=1, n_head=1, n_embd=8).double().eval()
    ids = np.random.default_rng(0).integers(0, 11, 40)
    found = token_nats(model, ids, CPU, stride=1)
    for target in range(1, 40):
        seen = torch.from_numpy(ids[max(0, target - 6) : target])[None]
        with torch.no_grad():
            expected = -model(seen)[0, -1].log_softmax(-1)[ids[target]].item()
        assert found[target - 1] == pytest.approx(expected, abs=1e-10)
    assert not np.allclose(found, token_nats(model, ids, CPU, stride=6))


def test_the_loss_of_half_precision_logits_is_computed_in_fp32() -> None:
    logits = torch.randn(4, 50_000).bfloat16()
    targets = torch.tensor([1, 2, 3, 4])
    assert nats_N(logits, targets).dtype == torch.float32
    assert nats_N(logits.double(), targets).dtype == torch.float64


def test_training_costs_three_forward_passes() -> None:
    """A backward pass is two more products for each; only the first layer's input needs none."""

    def build() -> GPT:
        return GPT(vocab_size=65, block_size=64, n_layer=4, n_head=4, n_embd=128)

    assert measure.step_flops(build, 64) == pytest.approx(
        3 * measure.forward_flops(build, 64), rel=1e-9
    )


def test_a_count_is_shared_by_what_decides_it_alone() -> None:
    def build(n_layer: int) -> GPT:
        return GPT(vocab_size=65, block_size=64, n_layer=n_layer, n_head=4, n_embd=128)

    one = measure.step_flops(lambda: build(1), 64, decided_by="one layer")
    assert one == measure.step_flops(lambda: build(1), 64)
    assert one == measure.step_flops(lambda: build(2), 64, decided_by="one layer")  # not counted
    assert one < measure.step_flops(lambda: build(2), 64, decided_by="two layers")
    assert one > measure.step_flops(lambda: build(1), 63, decided_by="one layer")
    assert one > measure.step_flops(lambda: build(1), 64, slice(8, None), "one layer")


def test_tied_and_embedding_parameters_count_once() -> None:
    model = GPT(vocab_size=65, block_size=64, n_layer=1, n_head=1, n_embd=8)
    counted = measure.parameters(model)
    assert counted["embedding"] == (65 + 64) * 8
    assert counted["total"] == counted["trainable"] == sum(p.numel() for p in model.parameters())
    model.token_embedding.weight.requires_grad_(False)
    assert measure.parameters(model)["trainable"] == counted["total"] - 65 * 8


def test_peak_memory_forgets_what_was_before() -> None:
    before = PeakMemory(torch.device("cpu"))
    with mmap.mmap(-1, 60_000_000) as block:  # memory that goes back to the system for certain
        block.write(b"1" * 60_000_000)
        grown = before.read()
    after = PeakMemory(torch.device("cpu")).read()
    assert grown - after > 40_000_000
