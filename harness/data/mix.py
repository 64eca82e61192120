"""Several corpora in one training: each is split by itself, and its rows are drawn by weight."""

from __future__ import annotations

import glob
import hashlib
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from itertools import accumulate, chain
from pathlib import Path
from typing import cast

from omegaconf import OmegaConf

from harness.common.errors import UsageError
from harness.common.paths import CONF, expand
from harness.common.values import did_you_mean, show
from harness.config.build import build_object
from harness.config.keys import Node, names_in_group
from harness.data.assets import Assets
from harness.data.corpus import Corpus, Span, Text, TextFile, split_points

MOST = 64  # corpora
NAME = re.compile(r"\w[\w.+-]{0,99}")  # a part of the names of scores


class MixText(Text):
    """Texts, each cut by itself: their train parts one after the other, then those of validation,
    then those of test. No part of it is read as one text (`Span.texts`)."""

    def __init__(self, texts: Mapping[str, Text], split: list[float]) -> None:
        self.names = tuple(texts)
        self.texts = tuple(texts.values())
        self._source = Path(f"a text of the mix ({', '.join(self.names)})")
        cuts = [split_points(text, split) for text in self.texts]
        self._pieces = [
            (text, *own[part])
            for part in range(3)
            for text, own in zip(self.texts, cuts, strict=True)
        ]
        sizes = (stop - start for _, start, stop in self._pieces)
        self._borders = [0, *accumulate(sizes)]
        self.size = self._borders[-1]

    def read(self, start: int, stop: int) -> bytes:
        found = []
        for (text, first, last), at in zip(self._pieces, self._borders, strict=False):
            begin, end = max(start, at), min(stop, at + last - first)
            if begin < end:
                found.append(text.read(first + begin - at, first + end - at))
        return b"".join(found)

    def cut(self, share: float) -> int:
        return sum(text.cut(share) for text in self.texts)

    def spans(self, parts: Iterable[tuple[int, int]]) -> tuple[Span, list[Span]]:
        own = []
        for start, stop in zip(self._borders, self._borders[1:], strict=False):
            _, (span,) = super().spans([(start, stop)])
            own.append(span)
        self.digests = [text.spans([(0, text.size)])[0].sha256 for text in self.texts]
        count = len(self.texts)
        groups = [tuple(own[first : first + count]) for first in range(0, len(own), count)]
        found = [_of_texts(*part, texts) for part, texts in zip(parts, groups, strict=True)]
        return _of_texts(0, self.size, tuple(own)), found

    @contextmanager
    def unchanged(self, span: Span) -> Iterator[Iterable[str]]:
        with ExitStack() as stack:
            each = [stack.enter_context(Text.unchanged(self, own)) for own in span.texts or [span]]
            yield chain.from_iterable(each)

    def _is_as_it_was(self) -> bool:
        return all(text._is_as_it_was() for text in self.texts)

    def notes(self) -> list[str]:
        pairs = zip(self.names, self.texts, strict=True)
        return [f"{name}: {note}" for name, text in pairs for note in text.notes()]


def _of_texts(start: int, stop: int, texts: tuple[Span, ...]) -> Span:
    digest = hashlib.sha256("".join(text.sha256 for text in texts).encode())
    return Span(start, stop, digest.hexdigest(), texts)


class Mix(Corpus):
    """texts: corpora by names of one's own, each a choice of conf/data or a path, as of
    data=text. split: of each by itself. weights: the share of the rows of training that each gives;
    None: by their tokens.

    A vocabulary is learnt from all train parts as they are, whatever their weights.
    """

    def __init__(
        self,
        texts: dict[str, str],
        split: list[float],
        weights: dict[str, float] | None = None,
    ) -> None:
        super().__init__(split)
        if not 2 <= len(texts) <= MOST:
            raise ValueError(f"texts names {len(texts)}: a mix has 2 to {MOST}")
        for name in texts:
            if NAME.fullmatch(name) is None:
                raise ValueError(f"texts.{show(name)} is no plain name: letters, digits, . _ + -")
        if weights is not None:
            _require_weights(weights, texts)
            weights = {name: float(weights[name]) for name in texts}
        self.weights, self._named = weights, texts
        self.texts = {name: _corpus(name, named, split) for name, named in texts.items()}
        self.found = "+".join(texts)[:90]

    def read(self, assets: Assets) -> MixText:
        choices = names_in_group("data")
        for name, named in self._named.items():
            if not (named in choices or os.path.lexists(expand(named)) or glob.has_magic(named)):
                raise UsageError(
                    f"data.texts.{name}={show(named)} is no file, and no choice of data."
                    f"{did_you_mean(named, choices)}"
                )
        return MixText({name: each.read(assets) for name, each in self.texts.items()}, self.split)

    def moved_to(self, path: Path) -> Corpus:
        raise UsageError("--data-path names one text, and this run's data are a mix of several")


def _require_weights(weights: Mapping[str, float], texts: Mapping[str, str]) -> None:
    if weights.keys() != texts.keys():
        wrong = sorted(weights.keys() ^ texts.keys())
        raise ValueError(f"weights and texts should have the same names, unlike {', '.join(wrong)}")
    total = math.fsum(weights.values())
    if not (min(weights.values()) > 0 and math.isclose(total, 1, abs_tol=1e-9)):
        raise ValueError(f"weights={show(dict(weights))} must be positive shares that add up to 1")


def _corpus(name: str, named: str, split: list[float]) -> Corpus:
    """The corpus that a choice of conf/data, or else a path, names."""
    where = f"data.texts.{name}={show(named)}"
    if named not in names_in_group("data"):
        return TextFile(named, split, "strict")
    node = _choice(named) | {"split": split}
    if "???" in node.values():
        raise UsageError(f"{where} has no path of its own: give the path in its place")
    corpus = build_object(node, Corpus, f"data.texts.{name}")
    if corpus.several or corpus.words is not None:
        raise UsageError(f"{where} is not one long text, and a mix is of these alone")
    return corpus


def _choice(name: str) -> Node:
    """A file of conf/data with those that it is based on."""
    node = cast(Node, OmegaConf.to_container(OmegaConf.load(CONF / "data" / f"{name}.yaml")))
    based_on = [each for each in node.pop("defaults", []) if isinstance(each, str)]
    return {key: value for each in based_on for key, value in _choice(each).items()} | node
