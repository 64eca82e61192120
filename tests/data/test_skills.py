"""Tasks: solvable, by chance at the stated accuracy, pure functions of seed and step."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf

from harness.common.errors import RunFailure, UsageError
from harness.common.paths import CONF
from harness.config.build import build_object
from harness.data.batches import IGNORED, draw_batch, row_shape
from harness.data.corpus import split_points
from harness.data.encoded import encode_parts
from harness.data.skills.draws import Draws
from harness.data.skills.task import Examples, Skill
from tests.data.solvers import SOLVERS
from zoo_tokenizers import EndMarker
from zoo_tokenizers.ids import GivenIds

NAMES = list(SOLVERS)
LONGER = {"longer": [96, 128]}
# Closed forms: the share of the likeliest answer, each being equally likely.
CHANCE = {
    "recall": 1 / 32,
    "noisy_recall": 1 / 8,
    "induction": 1 / 32,
    "selective_copying": 1 / 16,
    "compression": 1 / 16,
    "permutations": 1 / 120,
    "parity": 1 / 2,
    "dyck": 1 / 4,
    "addition": 1 / 10,
}


def task(name: str, **changes: object) -> Skill:
    node = OmegaConf.to_container(OmegaConf.load(CONF / "data" / f"{name}.yaml"))
    assert isinstance(node, dict)
    node.pop("defaults")
    return build_object({str(k): v for k, v in node.items()} | changes, Skill, "data")


def examples(skill: Skill, rows: int = 64, seed: int = 0, length: int | None = None) -> Examples:
    """From several draws, as sizes are those of a draw."""
    parts = [skill.draw(Draws(seed, n), 16, length or skill.length) for n in range(rows // 16)]
    ids, scored = (np.concatenate(each) for each in zip(*parts, strict=True))
    return ids, scored


def wrong(name: str, skill: Skill, found: Examples) -> Iterator[str]:
    """Answers that the solver does not give, and what it knows that is not asked."""
    for ids, scored in zip(*found, strict=True):
        words = [skill.words[id_] for id_ in ids]
        solved = SOLVERS[name](words)
        places = np.flatnonzero(scored).tolist()
        if sorted(solved) != places:
            yield f"asked at {places}, solved at {sorted(solved)}"
        yield from (f"{words[at]} at {at}" for at in places if solved.get(at) != words[at])


def shifted(found: Examples) -> Examples:
    return found[0], np.roll(found[1], 1, axis=1)


@pytest.mark.parametrize("name", NAMES)
def test_a_solver_has_every_answer(name: str) -> None:
    """At the length of training and at others; and none if the answers are sought one off."""
    skill = task(name, **LONGER)
    for length in (skill.length, *skill.longer):
        found = examples(skill, length=length)
        assert found[0].shape == found[1].shape == (64, length - 1)
        assert found[1].any()
        assert list(wrong(name, skill, found)) == []
        assert list(wrong(name, skill, shifted(found)))


def test_digits_may_be_written_highest_first() -> None:
    skill = task("addition", lowest_first=False)
    for ids, _ in zip(*examples(skill), strict=True):
        for problem in "".join(skill.words[id_] for id_ in ids).rstrip(".").split(";")[:-1]:
            left, total = problem.split("=")
            a, b = left.split("+")
            assert (int(a) + int(b)) % 10 ** len(total) == int(total)


@pytest.mark.parametrize("name", NAMES)
def test_chance_is_the_closed_form(name: str) -> None:
    """Answers are uniform, whatever stands right before them: nothing leaks to a bigram."""
    skill = task(name)
    assert skill.chance == pytest.approx(CHANCE[name])
    assert shortcuts(skill) == []


def shortcuts(skill: Skill) -> list[str]:
    """What a constant answer, and one that goes by the word before, gets beyond chance."""
    halves = [examples(skill, 800, seed) for seed in (1, 2)]
    counts: list[dict[int, Counter]] = [defaultdict(Counter), defaultdict(Counter)]
    for ids, scored in halves[:1]:
        before = np.pad(ids, ((0, 0), (1, 0)), constant_values=-1)[:, :-1]
        for last, answer in zip(before[scored].tolist(), ids[scored].tolist(), strict=True):
            counts[0][0][answer] += 1
            counts[1][last][answer] += 1
    ids, scored = halves[1]
    before = np.pad(ids, ((0, 0), (1, 0)), constant_values=-1)[:, :-1]
    answers, lasts, found = ids[scored].tolist(), before[scored].tolist(), []
    for name, table, keys in (("constant", counts[0], [0] * len(lasts)),
                              ("bigram", counts[1], lasts)):  # fmt: skip
        best = {key: max(own, key=own.__getitem__) for key, own in table.items()}
        hits = [best.get(key) == answer for key, answer in zip(keys, answers, strict=True)]
        spread = 5 * (skill.chance * (1 - skill.chance) * 4 / len(hits)) ** 0.5
        if abs(np.mean(hits) - skill.chance) > spread:
            found.append(f"{name}: {np.mean(hits):.3f}")
    return found


class Leaking(Skill):
    """The answer also stands right before itself."""

    def __init__(self, of: Skill) -> None:
        self.of, self.words, self.chance, self.length = of, of.words, of.chance, of.length

    def draw(self, draws: Draws, rows: int, length: int) -> Examples:
        ids, scored = self.of.draw(draws, rows, length)
        before = np.pad(scored, ((0, 0), (0, 1)))[:, 1:] & ~scored
        return np.where(before, np.roll(ids, -1, axis=1), ids), scored


@pytest.mark.parametrize("name", NAMES)
def test_an_answer_that_leaks_is_seen(name: str) -> None:
    assert shortcuts(Leaking(task(name)))


def test_fillers_are_never_keys_nor_values() -> None:
    skill = task("recall", fillers=2)
    ids, _ = examples(skill, 640)
    counts = np.sort([(ids == key).sum(axis=1) for key in range(32)], axis=0)
    assert set(counts.ravel().tolist()) == {0, 2}  # each key of a row twice: the pair, the question
    assert ((ids < 64).sum(axis=1) == 4 * 8).all()


def test_distances_follow_the_law() -> None:
    """Near ones are preferred, and with power=1 all are equally likely."""
    at = {}
    for power in (0.01, 1.0):
        skill = task("recall", power=power, pairs=1)
        _, scored = examples(skill, 1600)
        at[power] = np.bincount(scored.argmax(axis=1) // 2, minlength=31)[1:] / 1600
    weights = np.arange(1, 31) ** -0.99
    assert np.allclose(at[0.01], weights / weights.sum(), atol=0.05)
    assert np.allclose(at[1.0], 1 / 30, atol=0.03)


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_is_a_pure_function_of_seed_and_step(name: str) -> None:
    one, other = task(name), task(name)
    first = one.batch(5, 70, 4)
    other.batch(5, 69, 4)
    assert all(map(np.array_equal, first, other.batch(5, 70, 4)))
    for seed, step in ((6, 70), (5, 71), (2**64 - 1, 70)):
        assert not np.array_equal(first[0], one.batch(seed, step, 4)[0])
    inputs, targets = first
    asked = targets != IGNORED
    assert np.array_equal(targets[:, :-1][asked[:, :-1]], inputs[:, 1:][asked[:, :-1]])
    assert not asked[:, -1].any()  # the end marker
    assert (inputs[:, 0] == len(one.words)).all()
    for row, own in zip(inputs[:, 1:].tolist(), asked, strict=True):
        assert (
            sorted(SOLVERS[name]([one.words[id_] for id_ in row])) == np.flatnonzero(own).tolist()
        )


def test_a_batch_always_asks_for_something() -> None:
    """Where chance would have it otherwise, another one is drawn."""
    skill = task("noisy_recall", length=9, keys=16)
    for step in range(60):
        assert (skill.batch(0, step, 1)[1] != IGNORED).any()
    with pytest.raises(RunFailure, match="100 batches of 1 examples ask for nothing"):
        task("noisy_recall", length=5, keys=60_000).batch(0, 0, 1)


def test_numbers_of_a_key_are_frozen() -> None:
    """Runs must be repeatable on any machine, with any numpy."""
    draws = Draws(1, 2)
    assert draws.raw(2).tolist() == [5705853004827290377, 6584680345644299050]
    assert draws.below(10, 2, 3).tolist() == [[3, 4, 3], [4, 5, 2]]
    assert Draws(1, 2, apart=1).raw(1)[0] not in draws.raw(1000)


def test_what_is_scored_is_encoded_as_it_was_drawn(tmp_path: Path) -> None:
    skill = task("dyck", examples=100)
    text = skill.read(None)  # type: ignore[arg-type]
    whole, parts = text.spans(split_points(text, skill.split))
    tokenizer = EndMarker(GivenIds(skill.words))
    splits, lost = encode_parts(text, whole, parts, tokenizer, tmp_path)
    assert lost is None
    drawn = [skill.draw(Draws(64, n, apart=1), 32, 64) for n in range(4)]
    ids, scored = (np.concatenate(each)[:100] for each in zip(*drawn, strict=True))
    for split, own in zip(splits, (slice(0, 50), slice(50, 75), slice(75, 100)), strict=True):
        documents = split.documents
        assert documents is not None
        assert documents.task is skill
        rows = split.ids[1:].reshape(-1, 64)
        assert np.array_equal(rows[:, :-1], ids[own])
        assert (rows[:, -1] == len(skill.words)).all()
        assert documents.scored is not None
        assert np.array_equal(documents.scored.reshape(-1, 64)[:, :-1], scored[own])
        assert tokenizer.decode(split.ids).split() == [skill.words[i] for i in ids[own].ravel()]
    part = splits[1].beginning(0.4, tokenizer.token_bytes)
    assert part.documents is not None
    assert np.array_equal(part.documents.scored, splits[1].documents.scored[: 10 * 64])
    assert part.documents.task is skill
    train = splits[0]
    assert row_shape(train.documents, 64) == (64, scored[:50].sum() / 50)
    batch = draw_batch(train.ids, 3, 4, 2, 64, train.documents)
    assert all(map(np.array_equal, batch, skill.batch(3, 4, 2)))


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        ("recall", {"pairs": 16}, "length=64 holds no example: 65 is the least"),
        ("recall", {"pairs": 15, "keys": 14}, "pairs=15 needs as many keys=14"),
        ("recall", {"longer": [64]}, "longer=[64] must lie beyond length=64"),
        ("recall", {"fillers": 0}, "fillers=0 must lie between 1 and 65536"),
        ("noisy_recall", {"noise": 1.0}, "noise=1.0 must be a share below 1"),
        ("induction", {"repeats": 31}, "length=64 holds no example"),
        ("selective_copying", {"copied": 40}, "length=64 holds no example: 82"),
        ("compression", {"asked": 17}, "asked=17 must be at most stored=16"),
        ("permutations", {"objects": 7}, "objects=7 must lie between 2 and 6"),
        ("permutations", {"steps": 70}, "length=64 holds no example: 73"),
        ("dyck", {"longer": [65]}, "longer=[65]: 65 holds no larger problem"),
        ("addition", {"examples": 0}, "examples=0 must be 1 or more"),
        ("addition", {"examples": 2**21}, "examples=2097152 of length=64 are too many or too long"),
        ("recall", {"keys": 2**40}, "keys=1099511627776 must lie between 1 and 65536"),
        ("dyck", {"depth": 1}, "depth=1 must be 2 or more"),
    ],
)
def test_what_holds_no_example_is_refused(name: str, changes: dict, words: str) -> None:
    with pytest.raises(UsageError) as error:
        task(name, **changes)
    assert words in str(error.value)
