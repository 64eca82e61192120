"""Decoding equals what a full, uncached forward pass, plain counting and transformers give."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from harness.sampling.decode import SamplingParams, generate, stream
from tests.zoo_models import NAMES, maker, of_each_kind, random_ids, randomize
from zoo.bigram import Bigram
from zoo.gpt import GPT
from zoo.language_model import LanguageModel

GREEDY = SamplingParams(temperature=0)
BLOCK = 8


def gpt(vocab_size: int = 11, dropout: float = 0.0) -> LanguageModel:
    model = GPT(vocab_size, BLOCK, n_layer=2, n_head=2, n_embd=8, dropout=dropout)
    return randomize(model.double())


@torch.inference_mode()
def greedy_by_hand(model: LanguageModel, ids_BT: Tensor, tokens: int) -> Tensor:
    """No cache: a full forward pass for every token. A full window goes on from its last half."""
    model.eval()
    block = model.block_size
    context = ids_BT.shape[1] if block is None else min(ids_BT.shape[1], block)
    for _ in range(tokens):
        logits_BTV = model(ids_BT[:, ids_BT.shape[1] - context :])
        ids_BT = torch.cat([ids_BT, logits_BTV[:, -1:].argmax(-1)], dim=1)
        context = context + 1 if context != block else block // 2
    return ids_BT


# The smallest windows that the conf files allow are used as they are; tokens go past each of them.
@pytest.mark.parametrize("name", of_each_kind(NAMES))
def test_greedy_equals_a_full_forward_pass_for_every_token(name: str) -> None:
    model = maker(name, "train.seq_len=32")()
    prompt = random_ids(2, 5)
    assert torch.equal(generate(model, prompt, 45, GREEDY), greedy_by_hand(model, prompt, 45))


@pytest.mark.parametrize("prompt_length", [1, 5, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK])
def test_greedy_beyond_the_window(prompt_length: int) -> None:
    """A prompt that is longer than the window is cropped to it, and the text goes on past it."""
    model, prompt = gpt(), random_ids(2, prompt_length, vocab_size=11)
    found = generate(model, prompt, 30, GREEDY)
    assert torch.equal(found, greedy_by_hand(model, prompt, 30))
    assert torch.equal(found[:, :prompt_length], prompt)


def test_dropout_is_off_while_decoding_and_as_it_was_after_it() -> None:
    model, prompt = gpt(dropout=0.5), random_ids(1, 3, vocab_size=11)
    model.train()
    found = [generate(model, prompt, 20, GREEDY) for _ in range(2)]
    assert model.training
    assert torch.equal(*found)
    model.eval()
    generate(model, prompt, 2, GREEDY)
    assert not model.training


def test_the_same_seed_draws_the_same_and_leaves_torchs_generator_alone() -> None:
    model, prompt = gpt(), random_ids(2, 3, vocab_size=11)
    before = torch.random.get_rng_state()
    first, second, other = (
        generate(model, prompt, 30, SamplingParams(), seed) for seed in (3, 3, 4)
    )
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
    assert not torch.equal(
        first[0], generate(model, prompt[:1].expand(2, -1), 30, SamplingParams())[1]
    )


# What is drawn


def table(probabilities: list[float]) -> LanguageModel:
    """A model whose next token always has these probabilities."""
    model = Bigram(len(probabilities)).double()
    with torch.no_grad():
        model.table.weight[:] = torch.tensor(probabilities).double().log() + 3.0
    return model


def frequencies(model: LanguageModel, choice: SamplingParams, draws: int = 4000) -> list[float]:
    ids = generate(model, torch.zeros(draws, 1, dtype=torch.int64), 1, choice)
    return (torch.bincount(ids[:, 1], minlength=model.vocab_size) / draws).tolist()


FOUR = [0.4, 0.3, 0.2, 0.1]


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (SamplingParams(), FOUR),
        (SamplingParams(temperature=0), [1, 0, 0, 0]),
        (SamplingParams(temperature=1e-320), [1, 0, 0, 0]),
        (SamplingParams(temperature=0.5), [16 / 30, 9 / 30, 4 / 30, 1 / 30]),
        (SamplingParams(temperature=1e9), [0.25] * 4),
        (SamplingParams(top_k=1), [1, 0, 0, 0]),
        (SamplingParams(top_k=2), [4 / 7, 3 / 7, 0, 0]),
        (SamplingParams(top_k=4), FOUR),
        (SamplingParams(top_k=1000), FOUR),  # clamped to the vocabulary
        (SamplingParams(top_p=1e-9), [1, 0, 0, 0]),
        (SamplingParams(top_p=0.39), [1, 0, 0, 0]),
        (SamplingParams(top_p=0.41), [4 / 7, 3 / 7, 0, 0]),
        (SamplingParams(top_p=0.69), [4 / 7, 3 / 7, 0, 0]),
        (SamplingParams(top_p=0.89), [4 / 9, 3 / 9, 2 / 9, 0]),
        (SamplingParams(top_p=1.0), FOUR),
        (
            SamplingParams(top_k=3, top_p=0.7),
            [4 / 7, 3 / 7, 0, 0],
        ),  # 4/9 + 3/9 reach 0.7 of the three
        (SamplingParams(temperature=0.5, top_k=2), [16 / 25, 9 / 25, 0, 0]),
        (SamplingParams(min_p=0), FOUR),
        (
            SamplingParams(min_p=0.49),
            [4 / 9, 3 / 9, 2 / 9, 0],
        ),  # 0.49 of the likeliest's 0.4 is 0.196
        (SamplingParams(min_p=0.51), [4 / 7, 3 / 7, 0, 0]),
        (SamplingParams(min_p=1), [1, 0, 0, 0]),
        (
            SamplingParams(temperature=0.5, min_p=0.51),
            [16 / 25, 9 / 25, 0, 0],
        ),  # 9 is 0.56 of 16, 4 0.25
    ],
)
def test_draws_as_often_as_the_probabilities_say(
    choice: SamplingParams, expected: list[float]
) -> None:
    found = frequencies(table(FOUR), choice)
    for frequency, probability in zip(found, expected, strict=True):
        # Five standard deviations; exactly 0 and 1 where nothing is left to chance.
        margin = 5 * math.sqrt(probability * (1 - probability) / 4000)
        assert abs(frequency - probability) <= margin + 1e-6


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": -0.1},
        {"temperature": math.nan},
        {"temperature": math.inf},
        {"top_k": 0},
        {"top_k": -1},
        {"top_p": 0.0},
        {"top_p": -0.5},
        {"top_p": 1.1},
        {"top_p": math.nan},
        {"min_p": -0.1},
        {"min_p": 1.1},
        {"min_p": math.nan},
        {"repetition_penalty": 0.0},
        {"repetition_penalty": -1.0},
        {"repetition_penalty": math.nan},
        {"repetition_penalty": math.inf},
    ],
)
def test_refuses_what_draws_nothing(wrong: dict[str, float]) -> None:
    (name,) = wrong
    with pytest.raises(ValueError, match=f"^{name}="):
        SamplingParams(**wrong)  # type: ignore[arg-type]


# Against transformers

LOGITS_BV = 3 * torch.randn(60, 40, generator=torch.Generator().manual_seed(5)).double()
IDS_BT = random_ids(60, 12, vocab_size=40)


def theirs(choice: SamplingParams) -> list[Any]:
    """transformers' processors for this choice, in the order of its `_get_logits_processor`."""
    from transformers.generation import logits_process as library

    made: list[Any] = []
    if choice.repetition_penalty != 1:
        made.append(library.RepetitionPenaltyLogitsProcessor(choice.repetition_penalty))
    made.append(library.TemperatureLogitsWarper(choice.temperature))
    if choice.top_k is not None:
        made.append(library.TopKLogitsWarper(choice.top_k))
    if choice.top_p is not None:
        made.append(library.TopPLogitsWarper(choice.top_p))
    if choice.min_p is not None:
        made.append(library.MinPLogitsWarper(choice.min_p))
    return made


def processed(processors: list[Any]) -> Tensor:
    scores = LOGITS_BV
    for processor in processors:
        scores = processor(IDS_BT, scores)
    return scores.softmax(-1)


@pytest.mark.parametrize(
    "choice",
    [
        SamplingParams(0.7),
        SamplingParams(1.6),
        SamplingParams(top_k=1),
        SamplingParams(top_k=7),
        SamplingParams(top_p=0.05),
        SamplingParams(top_p=0.6),
        SamplingParams(top_p=0.95),
        SamplingParams(min_p=0.02),
        SamplingParams(min_p=0.5),
        SamplingParams(repetition_penalty=1.3),
        SamplingParams(repetition_penalty=0.6),
        SamplingParams(0.7, top_k=9, top_p=0.9, min_p=0.1, repetition_penalty=1.2),
        SamplingParams(1.4, top_k=20, top_p=0.8, min_p=0.05, repetition_penalty=1.5),
    ],
    ids=str,
)
def test_the_probabilities_are_transformers(choice: SamplingParams) -> None:
    ours = choice.truncate(choice.penalize(LOGITS_BV, IDS_BT)).softmax(-1)
    expected = processed(theirs(choice))
    assert torch.equal(ours > 0, expected > 0)
    assert (ours - expected).abs().max() < 1e-14


@pytest.mark.parametrize("order", ["rkptm", "rtpkm", "rtkmp", "tkpmr"])
def test_the_order_matters(order: str) -> None:
    """So that the last test would see another: of repetition, temperature, k, p and min-p."""
    choice = SamplingParams(1.4, top_k=4, top_p=0.8, min_p=0.2, repetition_penalty=1.5)
    processors = dict(zip("rtkpm", theirs(choice), strict=True))
    other = processed([processors[letter] for letter in order])
    assert (other - processed(theirs(choice))).abs().max() > 1e-3


def test_what_was_said_is_said_less() -> None:
    """By a penalty of 2 the logit 2 becomes 1, and -1 becomes -2, in the prompt and after it."""
    model = Bigram(4).double()
    with torch.no_grad():
        model.table.weight[:] = torch.tensor([2.0, 1.5, 1.2, -1.0]).double()
    greedy = SamplingParams(temperature=0, repetition_penalty=2)
    # 0: 2, 1; 1: 1.5, .75; 2: 1.2, .6 once each was said.
    assert generate(model, torch.tensor([[3]]), 5, greedy).tolist() == [[3, 0, 1, 2, 0, 0]]
    assert generate(model, torch.tensor([[0]]), 3, greedy).tolist() == [[0, 1, 2, 0]]
    penalized = greedy.penalize(torch.tensor([[2.0, 1.5, 1.2, -1.0]]), torch.tensor([[3, 3, 0]]))
    assert penalized.tolist() == [[1.0, 1.5, pytest.approx(1.2), -2.0]]


# Ids that are not to be said


@pytest.mark.parametrize(
    "choice",
    [SamplingParams(), GREEDY, SamplingParams(top_k=1), SamplingParams(top_p=0.1)],
    ids=str,
)
def test_only_what_is_allowed_is_drawn(choice: SamplingParams) -> None:
    """In proportion; without the mask the others come, too."""
    allowed = torch.tensor([False, True, False, True])
    found = generate(table(FOUR), torch.zeros(4000, 1, dtype=torch.int64), 1, choice, 0, allowed)
    counts = torch.bincount(found[:, 1], minlength=4)
    assert counts[[0, 2]].tolist() == [0, 0]
    expected = 3 / 4 if choice == SamplingParams() else 1
    assert abs(counts[1] / 4000 - expected) <= 5 * math.sqrt(3 / 16 / 4000)
    assert frequencies(table(FOUR), choice)[0] > 0


# As it goes


def test_a_stream_gives_each_token_before_the_next_is_computed() -> None:
    model, prompt = gpt(), random_ids(2, 3, vocab_size=11)
    whole = generate(model, prompt, 20, SamplingParams(), 7)
    model.train()
    going = stream(model, prompt, 20, SamplingParams(), 7)
    first = [next(going) for _ in range(5)]
    assert torch.equal(torch.cat(first, dim=1), whole[:, 3:8])
    going.close()
    assert model.training
