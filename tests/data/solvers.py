"""Solvers of the tasks, in plain Python, from the words alone: nothing of the generators."""

from __future__ import annotations

from collections.abc import Callable, Sequence

Words = Sequence[str]
Answers = dict[int, str]
"""The words that follow from those before them, by their places."""


def recall(words: Words) -> Answers:
    """What came after a key comes after it again."""
    found, known = {}, dict[str, str]()
    for at, word in enumerate(words[:-1]):
        if word[0] == "k" and words[at + 1][0] == "v":
            if word in known:
                found[at + 1] = known[word]
            known.setdefault(word, words[at + 1])
    return found


def induction(words: Words) -> Answers:
    first, *others = [at for at, word in enumerate(words) if word == "!"]
    return {at + 1: words[first + 1] for at in others}


def selective_copying(words: Words) -> Answers:
    divider = words.index("|")
    copied = [word for word in words[:divider] if word != "."]
    return {divider + 1 + at: word for at, word in enumerate(copied)}


def compression(words: Words) -> Answers:
    divider = words.index("|")
    places = range(divider + 1, len(words), 2)
    return {at + 1: words[int(words[at].removeprefix("@"))] for at in places}


def permutations(words: Words) -> Answers:
    """Things are put in the order of each word, one word after the other."""
    found, things = {}, None
    for at, word in enumerate(words):
        if word == "=":
            found[at + 1] = "".join(things or [])
        elif at in found:
            things = None
        elif word != ".":
            things = things or [str(number) for number in range(len(word))]
            things = [things[int(place)] for place in word]
    return found


def dyck(words: Words) -> Answers:
    found, is_open = {}, list[str]()
    for at, word in enumerate(words):
        if word == "=":
            found |= {at + 1 + n: f"){kind}" for n, kind in enumerate(reversed(is_open))}
            is_open = []
        elif at in found:
            continue
        elif word[0] == "(":
            is_open.append(word[1:])
        elif word[0] == ")":
            assert is_open.pop() == word[1:]
    return found


def addition(words: Words) -> Answers:
    """Numbers whose lowest digit comes first."""
    found, start = {}, 0
    while ";" in words[start:]:
        end = words.index(";", start)
        a, rest = "".join(words[start:end]).split("+")
        b, _ = rest.split("=")
        total = str(int(a[::-1]) + int(b[::-1])).zfill(len(a))[::-1][: len(a)]
        found |= {end - len(a) + n: digit for n, digit in enumerate(total)}
        start = end + 1
    return found


SOLVERS: dict[str, Callable[[Words], Answers]] = {
    "recall": recall,
    "noisy_recall": recall,
    "induction": induction,
    "selective_copying": selective_copying,
    "compression": compression,
    "permutations": permutations,
    "parity": permutations,
    "dyck": dyck,
    "addition": addition,
}
