"""What all tasks share: examples are documents, of which some predictions count.

R rows, T tokens of an example with the marker that begins it, N = T - 1 words of it, D examples.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harness.common.errors import RunFailure, UsageError
from harness.data.assets import Assets
from harness.data.batches import IGNORED
from harness.data.corpus import Corpus, Span, Text
from harness.data.documents import DocumentText
from harness.data.skills.draws import Draws

ROWS = 32  # of what is scored, drawn at a time
SCORED = 1  # sets its numbers apart from those of training
TRIES = 100  # draws of a batch, until one asks for something
# A run's folder may come from a stranger.
MOST_WORDS, MOST_DIFFERENT, LONGEST = 1 << 26, 1 << 16, 1 << 16
Examples = tuple[NDArray[np.int64], NDArray[np.bool_]]
"""Ids, (R, N), and which of them count, (R, N): those that follow from what stands before."""


class ExampleText(DocumentText):
    """Examples as documents. scored_DN: which words count."""

    def __init__(
        self, task: Skill, documents: Sequence[bytes], scored_DN: NDArray[np.bool_]
    ) -> None:
        super().__init__(documents)
        self.task, self._scored_DN = task, scored_DN

    def scored(self, span: Span) -> NDArray[np.bool_]:
        first, last = np.searchsorted(self.ends, (span.start, span.stop), side="right")
        # No end marker counts.
        return np.pad(self._scored_DN[first:last], ((0, 0), (0, 1))).ravel()


class Skill(Corpus):
    """A task. Every row of training is a new example, drawn by seed and step; those that are scored
    are the same for all seeds.

    length: of an example: its words, and the marker before them. longer: further lengths, which are
    scored beside validation and test. examples: that are not trained on but split: for counts (and
    models that count), validation and test.
    """

    of_documents, rows = True, "alone"
    words: Sequence[str]
    chance: float
    """The accuracy of the best constant answer. A solver's is 1."""

    def __init__(self, length: int, longer: list[int], examples: int, split: list[float]) -> None:
        super().__init__(split)
        if examples < 1:
            raise ValueError(f"examples={examples} must be 1 or more")
        if max(length, *longer, 0) > LONGEST or examples * max(length, *longer, 0) > MOST_WORDS:
            raise ValueError(
                f"examples={examples} of length={length} are too many or too long: {LONGEST:,} "
                f"tokens are the longest, and {MOST_WORDS:,} the most together"
            )
        self.length, self.longer, self.examples = length, longer, examples

    def _require(self, least: int, **counts: int) -> None:
        """Raises ValueError for counts that are out of range and lengths that hold no example."""
        for name, count in counts.items():
            if not 1 <= count <= MOST_DIFFERENT:
                raise ValueError(f"{name}={count} must lie between 1 and {MOST_DIFFERENT}")
        if self.length < least:
            raise ValueError(f"length={self.length} holds no example: {least} is the least")
        if any(length <= self.length for length in self.longer):
            raise ValueError(f"longer={self.longer} must lie beyond length={self.length}")

    @abstractmethod
    def draw(self, draws: Draws, rows: int, length: int) -> Examples:
        """New examples."""

    def batch(self, seed: int, step: int, rows: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Inputs and targets of a step, (R, T) each; IGNORED where nothing counts."""
        for again in range(TRIES):
            draws = Draws(seed, step, apart=again and SCORED + again)
            ids_RN, scored_RN = self.draw(draws, rows, self.length)
            if scored_RN.any():
                break
        else:
            raise RunFailure(f"data: {TRIES} batches of {rows} examples ask for nothing")
        inputs_RT = np.pad(ids_RN, ((0, 0), (1, 0)), constant_values=len(self.words))
        targets_RT = np.pad(
            np.where(scored_RN, ids_RN, IGNORED), ((0, 0), (0, 1)), constant_values=IGNORED
        )
        return inputs_RT, targets_RT

    def text(self, length: int, count: int) -> ExampleText:
        """Examples that are not trained on."""
        parts = [
            self.draw(Draws(length, number, apart=SCORED), ROWS, length)
            for number in range(-(-count // ROWS))
        ]
        ids_DN, scored_DN = (np.concatenate(each)[:count] for each in zip(*parts, strict=True))
        names = [f"{word} " for word in self.words]
        documents = ["".join([names[id_] for id_ in row]).encode() for row in ids_DN.tolist()]
        return ExampleText(self, documents, scored_DN)

    def read(self, assets: Assets) -> ExampleText:
        return self.text(self.length, self.examples)

    def further(self) -> dict[str, Text]:
        """Of each as many as the larger of validation and test has."""
        count = max(1, int(self.examples * max(self.split[1:])))
        return {f"length_{length}": self.text(length, count) for length in self.longer}

    def moved_to(self, path: Path) -> Corpus:
        raise UsageError(
            f"the examples of {type(self).__name__} are generated: they lie in no file"
        )
