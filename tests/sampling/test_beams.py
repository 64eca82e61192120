"""Beam search finds what an exhaustive search finds, and ranks by the formula."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from harness.sampling.beams import beam_search, normalizer
from harness.sampling.decode import SamplingParams, generate
from tests.zoo_models import NAMES, maker, of_each_kind, random_ids, randomize
from zoo.bigram import Bigram
from zoo.gpt import GPT
from zoo.language_model import LanguageModel

GREEDY = SamplingParams(temperature=0)
Ends = Callable[[list[int]], bool]


def never(added: list[int]) -> bool:
    return False


def at_2(added: list[int]) -> bool:
    return added[-1] == 2


def at_1_2(added: list[int]) -> bool:
    """An end of two tokens, such as an empty line."""
    return added[-2:] == [1, 2]


def gpt(vocab_size: int, seed: int = 0) -> LanguageModel:
    return randomize(GPT(vocab_size, 8, n_layer=2, n_head=2, n_embd=8).double(), seed)


@torch.inference_mode()
def exhaustive(
    model: LanguageModel, prompt_T: Tensor, tokens: int, alpha: float, ends: Ends
) -> list[tuple[float, list[int]]]:
    """Every text with its score, best first, by a full forward pass each."""
    model.eval()
    found: dict[tuple[int, ...], float] = {}
    for continuation in itertools.product(range(model.vocab_size), repeat=tokens):
        lengths = [n for n in range(1, tokens) if ends(list(continuation[:n]))]
        added = continuation[: lengths[0] if lengths else tokens]
        if added in found:
            continue
        ids_T = torch.cat([prompt_T, torch.tensor(added)])
        log_p_TV = model(ids_T[None])[0].log_softmax(-1)
        steps = range(len(prompt_T) - 1, len(ids_T) - 1)
        log_p = sum(float(log_p_TV[t, ids_T[t + 1]]) for t in steps)
        found[added] = log_p / ((5 + len(added)) / 6) ** alpha
    return sorted(((score, list(added)) for added, score in found.items()), reverse=True)


@pytest.mark.parametrize("tokens", [1, 2, 4])
@pytest.mark.parametrize("alpha", [0.0, 0.6, 2.0])
@pytest.mark.parametrize("ends", [never, at_2, at_1_2])
def test_wide_beams_find_what_an_exhaustive_search_finds(
    tokens: int, alpha: float, ends: Ends
) -> None:
    """As many beams as there are texts one token shorter keep everything that can still win."""
    model, prompt = gpt(4), torch.tensor([1, 0, 3])
    beams = 4 ** (tokens - 1)
    expected = exhaustive(model, prompt, tokens, alpha, ends)[:beams]
    found = beam_search(model, prompt, tokens, beams, alpha=alpha, ends=ends)
    assert [beam.added for beam in found] == [added for _, added in expected]
    for beam, (score, _) in zip(found, expected, strict=True):
        assert beam.score == pytest.approx(score, abs=1e-12)
        assert beam.score == pytest.approx(beam.log_p / normalizer(len(beam.added), alpha))


@torch.inference_mode()
def plain_search(
    model: LanguageModel, prompt: list[int], tokens: int, beams: int, alpha: float, ends: Ends
) -> list[list[int]]:
    """The definition, without a cache and without leaving early."""
    going, complete = [(0.0, list[int]())], []
    for length in range(1, tokens + 1):
        candidates = []
        for log_p, added in going:
            log_p_V = model(torch.tensor([prompt + added]))[0, -1].log_softmax(-1).tolist()
            candidates += [(log_p + more, [*added, id_]) for id_, more in enumerate(log_p_V)]
        going = []
        for log_p, added in sorted(candidates, reverse=True):
            if ends(added) or length == tokens:
                complete.append((log_p / ((5 + length) / 6) ** alpha, added))
            if not ends(added):
                going.append((log_p, added))
            if len(going) == beams:
                break
    return [added for _, added in sorted(complete, reverse=True)[:beams]]


@pytest.mark.parametrize("beams", [1, 2, 3])
@pytest.mark.parametrize("alpha", [0.0, 1.0])
@pytest.mark.parametrize("seed", range(3))
def test_leaving_early_changes_nothing(beams: int, alpha: float, seed: int) -> None:
    model = gpt(5, seed)
    prompt = [1, 0]
    found = beam_search(model, torch.tensor(prompt), 6, beams, alpha=alpha, ends=at_2)
    expected = plain_search(model, prompt, 6, beams, alpha, at_2)
    assert [beam.added for beam in found] == expected


def test_leaves_early() -> None:
    """Where a text has ended that nothing can overtake, the model is not asked again."""
    model = Bigram(3).double()
    rows = torch.tensor([[0.04, 0.06, 0.9], [0.5, 0.5, 1e-9], [1.0, 1e-9, 1e-9]])
    with torch.no_grad():
        model.table.weight[:] = rows.double().log()
    asked = 0

    def count(*_: object) -> None:
        nonlocal asked
        asked += 1

    model.register_forward_hook(count)
    (best,) = beam_search(model, torch.tensor([0]), 50, 1, ends=at_2)
    assert (best.added, asked) == ([2], 1)


def test_the_normalizer_is_that_of_wu_et_al() -> None:
    assert normalizer(1, 0.6) == 1
    assert normalizer(7, 1.0) == 2
    assert normalizer(19, 0.5) == 2
    assert [normalizer(length, 0.0) for length in (1, 9)] == [1, 1]


def test_length_normalization_favours_the_longer() -> None:
    """From 0: the end at once with 0.4, or 1 and then surely the end, with 0.35: ln 0.4 = -0.92,
    ln 0.35 / (7 / 6)^2 = -0.77."""
    model = Bigram(3).double()
    rows = torch.tensor([[0.25, 0.35, 0.4], [1e-9, 1e-9, 1.0], [1.0, 1e-9, 1e-9]])
    with torch.no_grad():
        model.table.weight[:] = rows.double().log()
    prompt = torch.tensor([0])
    assert beam_search(model, prompt, 2, 3, ends=at_2)[0].added == [2]
    longer = beam_search(model, prompt, 2, 3, alpha=2.0, ends=at_2)[0]
    assert longer.added == [1, 2]
    assert longer.score == pytest.approx(-0.7713, abs=1e-4)


@pytest.mark.parametrize("alpha", [-0.1, float("nan"), float("inf")])
def test_refuses_a_wrong_alpha(alpha: float) -> None:
    with pytest.raises(ValueError, match=r"^alpha="):
        beam_search(gpt(3), torch.tensor([0]), 1, 1, alpha=alpha)


def test_beams_beat_greed_where_greed_is_wrong() -> None:
    """After 0 comes 1 with 0.6, then anything with a third; or 2 with 0.4, then surely 0."""
    model = Bigram(3).double()
    rows = torch.tensor([[1e-9, 0.6, 0.4], [1 / 3, 1 / 3, 1 / 3], [1.0, 1e-9, 1e-9]])
    with torch.no_grad():
        model.table.weight[:] = rows.double().log()
    prompt = torch.tensor([0])
    assert generate(model, prompt[None], 2, GREEDY)[0, 1] == 1
    assert beam_search(model, prompt, 2, beams=2)[0].added == [2, 0]


def test_only_what_is_allowed_is_followed() -> None:
    model, prompt = gpt(5), torch.tensor([1, 0])
    allowed = torch.tensor([True, False, True, False, True])
    found = beam_search(model, prompt, 3, 50, allowed_V=allowed)
    assert len(found) == 3**3
    assert {id_ for beam in found for id_ in beam.added} == {0, 2, 4}
    assert sum(torch.tensor([beam.log_p for beam in found]).exp()) == pytest.approx(1)
    others = beam_search(model, prompt, 3, 50)
    assert {id_ for beam in others for id_ in beam.added} == {0, 1, 2, 3, 4}


def test_many_ways_to_end_leave_room_for_those_that_go_on() -> None:
    """With more likely ends than beams."""
    model = Bigram(20)
    with torch.no_grad():
        model.table.weight[:] = torch.cat([torch.zeros(2), torch.full((18,), 3.0)])

    def above_1(added: list[int]) -> bool:
        return added[-1] > 1

    found = beam_search(model, torch.tensor([0]), 2, 3, alpha=40.0, ends=above_1)
    assert [len(beam.added) for beam in found] == [2, 2, 2]


@pytest.mark.parametrize("name", of_each_kind(NAMES))
def test_one_beam_is_greedy(name: str) -> None:
    """Past the window, too."""
    model = maker(name, "train.seq_len=32")()
    prompt = random_ids(1, 5)
    (found,) = beam_search(model, prompt[0], 40, 1)
    assert [*prompt[0].tolist(), *found.added] == generate(model, prompt, 40, GREEDY)[0].tolist()


@pytest.mark.parametrize("name", of_each_kind(NAMES))
def test_beams_carry_each_models_cache_along(name: str) -> None:
    """The score of each beam is that of one full forward pass, and the first's is no worse than
    greed's."""
    model = maker(name, "train.seq_len=32")()
    prompt = random_ids(1, 4)
    length = 12

    def score(ids_BT: Tensor) -> Tensor:
        with torch.inference_mode():
            log_p_BTV = model(ids_BT[:, :-1]).log_softmax(-1)
        picked_BT = log_p_BTV.gather(-1, ids_BT[:, 1:, None])[..., 0]
        return picked_BT[:, prompt.shape[1] - 1 :].sum(-1)

    beams = beam_search(model, prompt[0], length, beams=5)
    added_BT = torch.tensor([beam.added for beam in beams])
    scores = score(torch.cat([prompt.expand(5, -1), added_BT], dim=1))
    assert len({tuple(beam.added) for beam in beams}) == 5
    assert (scores.diff() <= 0).all()
    assert scores.tolist() == pytest.approx([beam.score for beam in beams], abs=1e-9)
    assert scores[0] >= score(generate(model, prompt, length, GREEDY))[0] - 1e-9


def test_fewer_texts_than_beams() -> None:
    assert len(beam_search(gpt(3), torch.tensor([0]), 1, beams=50)) == 3


def test_a_text_without_a_likely_next_token_ends_its_beam_alone() -> None:
    """After 1 nothing that is allowed can come; the search goes on with the others."""
    model = Bigram(3)
    with torch.no_grad():
        table = next(model.parameters())
        table.copy_(torch.tensor([[0.0, 0.0, 0.0], [-torch.inf, -torch.inf, 0.0], [0.0, 0.0, 0.0]]))
    allowed_V = torch.tensor([True, True, False])
    found = beam_search(model, torch.tensor([0]), 3, 4, allowed_V=allowed_V)
    assert sorted(beam.added for beam in found) == [[0, 0, 0], [0, 0, 1]]
