"""Decoding equals what a full, uncached forward pass and plain counting give."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from harness.decode import Choice, beam_search, generate
from zoo.bigram import Bigram
from zoo.gpt import GPT
from zoo.language_model import LanguageModel

from .zoo_models import NAMES, maker, random_ids, randomize

GREEDY = Choice(temperature=0)
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
@pytest.mark.parametrize("name", NAMES)
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
    first, second, other = (generate(model, prompt, 30, Choice(), seed) for seed in (3, 3, 4))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
    assert not torch.equal(first[0], generate(model, prompt[:1].expand(2, -1), 30, Choice())[1])


# What is drawn


def table(probabilities: list[float]) -> LanguageModel:
    """A model whose next token always has these probabilities."""
    model = Bigram(len(probabilities)).double()
    with torch.no_grad():
        model.logits_table.weight[:] = torch.tensor(probabilities).double().log() + 3.0
    return model


def frequencies(model: LanguageModel, choice: Choice, draws: int = 4000) -> list[float]:
    ids = generate(model, torch.zeros(draws, 1, dtype=torch.int64), 1, choice)
    return (torch.bincount(ids[:, 1], minlength=model.vocab_size) / draws).tolist()


FOUR = [0.4, 0.3, 0.2, 0.1]


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (Choice(), FOUR),
        (Choice(temperature=0), [1, 0, 0, 0]),
        (Choice(temperature=1e-320), [1, 0, 0, 0]),
        (Choice(temperature=0.5), [16 / 30, 9 / 30, 4 / 30, 1 / 30]),
        (Choice(temperature=1e9), [0.25] * 4),
        (Choice(top_k=1), [1, 0, 0, 0]),
        (Choice(top_k=2), [4 / 7, 3 / 7, 0, 0]),
        (Choice(top_k=4), FOUR),
        (Choice(top_k=1000), FOUR),  # clamped to the vocabulary
        (Choice(top_p=1e-9), [1, 0, 0, 0]),
        (Choice(top_p=0.39), [1, 0, 0, 0]),
        (Choice(top_p=0.41), [4 / 7, 3 / 7, 0, 0]),
        (Choice(top_p=0.69), [4 / 7, 3 / 7, 0, 0]),
        (Choice(top_p=0.89), [4 / 9, 3 / 9, 2 / 9, 0]),
        (Choice(top_p=1.0), FOUR),
        (Choice(top_k=3, top_p=0.7), [4 / 7, 3 / 7, 0, 0]),  # 4/9 + 3/9 reach 0.7 of the three
        (Choice(temperature=0.5, top_k=2), [16 / 25, 9 / 25, 0, 0]),
    ],
)
def test_draws_as_often_as_the_probabilities_say(choice: Choice, expected: list[float]) -> None:
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
    ],
)
def test_refuses_what_draws_nothing(wrong: dict[str, float]) -> None:
    (name,) = wrong
    with pytest.raises(ValueError, match=f"^{name}="):
        Choice(**wrong)  # type: ignore[arg-type]


# Beams


@torch.inference_mode()
def exhaustive(model: LanguageModel, prompt_T: Tensor, tokens: int) -> list[tuple[float, tuple]]:
    """Every continuation with its log probability, likeliest first, by a full forward pass each."""
    model.eval()
    found = []
    for continuation in itertools.product(range(model.vocab_size), repeat=tokens):
        ids_T = torch.cat([prompt_T, torch.tensor(continuation)])
        log_p_TV = model(ids_T[None])[0].log_softmax(-1)
        steps = range(len(prompt_T) - 1, len(ids_T) - 1)
        found.append((sum(float(log_p_TV[t, ids_T[t + 1]]) for t in steps), tuple(ids_T.tolist())))
    return sorted(found, reverse=True)


@pytest.mark.parametrize("tokens", [1, 2, 4])
def test_wide_beams_find_what_an_exhaustive_search_finds(tokens: int) -> None:
    """As many beams as there are texts one token shorter keep everything that can still win."""
    model, prompt = gpt(vocab_size=4), torch.tensor([1, 0, 3])
    expected = exhaustive(model, prompt, tokens)
    found = beam_search(model, prompt, tokens, beams=4 ** (tokens - 1))
    assert [tuple(row) for row in found.tolist()] == [
        ids for _, ids in expected[: 4 ** (tokens - 1)]
    ]


def test_beams_beat_greed_where_greed_is_wrong() -> None:
    """After 0 comes 1 with 0.6, then anything with a third; or 2 with 0.4, then surely 0."""
    model = Bigram(3).double()
    rows = torch.tensor([[1e-9, 0.6, 0.4], [1 / 3, 1 / 3, 1 / 3], [1.0, 1e-9, 1e-9]])
    with torch.no_grad():
        model.logits_table.weight[:] = rows.double().log()
    prompt = torch.tensor([0])
    assert generate(model, prompt[None], 2, GREEDY)[0, 1] == 1
    assert beam_search(model, prompt, 2, beams=2)[0].tolist() == [0, 2, 0]


@pytest.mark.parametrize("name", NAMES)
def test_one_beam_is_greedy(name: str) -> None:
    """Past the window, too."""
    model = maker(name, "train.seq_len=32")()
    prompt = random_ids(1, 5)
    assert torch.equal(beam_search(model, prompt[0], 40, 1), generate(model, prompt, 40, GREEDY))


@pytest.mark.parametrize("name", NAMES)
def test_beams_carry_each_models_cache_along(name: str) -> None:
    """The score of each beam, found again by one full forward pass, is in falling order and that of
    the first is no worse than greed's."""
    model = maker(name, "train.seq_len=32")()
    prompt = random_ids(1, 4)
    length = 12

    def score(ids_BT: Tensor) -> Tensor:
        with torch.inference_mode():
            log_p_BTV = model(ids_BT[:, :-1]).log_softmax(-1)
        picked_BT = log_p_BTV.gather(-1, ids_BT[:, 1:, None])[..., 0]
        return picked_BT[:, prompt.shape[1] - 1 :].sum(-1)

    beams = beam_search(model, prompt[0], length, beams=5)
    scores = score(beams)
    assert len({tuple(row) for row in beams.tolist()}) == 5
    assert (scores.diff() <= 1e-4).all()
    assert scores[0] >= score(generate(model, prompt, length, GREEDY))[0] - 1e-4


def test_fewer_texts_than_beams() -> None:
    assert beam_search(gpt(vocab_size=3), torch.tensor([0]), 1, beams=50).shape == (3, 2)
