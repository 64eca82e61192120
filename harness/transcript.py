"""Ids to text, as they come."""

from __future__ import annotations

from collections.abc import Sequence

from harness.values import printable
from zoo_tokenizers import Tokenizer

_HALF = "\N{REPLACEMENT CHARACTER}"  # what the first bytes of a character look like


class Transcript:
    """What a prompt's ids and those added to them say.

    Any tokenizer's `decode` will do: a few of the last ids are decoded again with each new one, and
    what has become longer is new. A character whose last byte is still to come is held back.

    text: all of it so far. ended: it has said `stop`, with which it ends; the prompt's text does
    not count.
    """

    def __init__(
        self, tokenizer: Tokenizer, prompt: Sequence[int], stop: str | None = None
    ) -> None:
        self._decode = tokenizer.decode
        self._ids: list[int] = []
        self._from = self._shown = 0  # ids from which on is decoded, and up to which all was said
        self._stop = None
        self.text, self.ended = "", False
        self.take(prompt)
        self._stop, self._begins = stop, len(self.text)

    def take(self, ids: Sequence[int]) -> str:
        """The text that these ids complete."""
        self._ids += ids
        before, now = self._last()
        if now.endswith(_HALF) or len(now) <= len(before):
            return ""
        self._from, self._shown = self._shown, len(self._ids)
        return self._say(now[len(before) :])

    def rest(self) -> str:
        """What was held back, when no more ids come."""
        before, now = self._last()
        return self._say(now[len(before) :])

    def _last(self) -> tuple[str, str]:
        shown, known = self._ids[self._from : self._shown], self._ids[self._from :]
        return printable(self._decode(shown)), printable(self._decode(known))

    def _say(self, new: str) -> str:
        said, self.text = len(self.text), self.text + new
        if self._stop:
            # It can only have become whole just now.
            place = self.text.find(self._stop, max(self._begins, said - len(self._stop)))
            if place >= 0:
                self.text, self.ended = self.text[: place + len(self._stop)], True
        return self.text[said:]
