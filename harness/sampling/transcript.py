"""Decoding ids to text one at a time."""

from __future__ import annotations

from collections.abc import Sequence

from harness.common.text import printable
from zoo_tokenizers import Tokenizer

_INCOMPLETE = "\N{REPLACEMENT CHARACTER}"  # decoded from the first bytes of a character


class Transcript:
    """The text of a prompt and of the ids added to it.

    Works with any tokenizer's `decode`: the last few ids are decoded again with each new one, and
    what the text has more is new. A character is held back until its last byte is there.

    text: all so far. ended: whether `stop` has occurred after the prompt, and the text ends in it,
    or the marker at the end of a document.
    """

    def __init__(
        self, tokenizer: Tokenizer, prompt: Sequence[int], stop: str | None = None
    ) -> None:
        self._decode, self._marker = tokenizer.decode, tokenizer.marker
        self._ids: list[int] = []
        self._from = self._shown = 0  # the first id decoded again, and the first not in the text
        self._stop = None
        self.text, self.ended = "", False
        self.add([id_ for id_ in prompt if id_ != self._marker])
        self._stop, self._begins = stop, len(self.text)

    def add(self, ids: Sequence[int]) -> str:
        """Add ids; returns the new text."""
        if self._marker in ids:
            new = self.add(ids[: ids.index(self._marker)])
            if not self.ended:
                new += self.flush()
            self.ended = True
            return new
        self._ids += ids
        before, now = self._decode_last()
        if now.endswith(_INCOMPLETE) or len(now) <= len(before):
            return ""
        self._from, self._shown = self._shown, len(self._ids)
        return self._append(now[len(before) :])

    def flush(self) -> str:
        """The text that was held back; called after the last id."""
        before, now = self._decode_last()
        return self._append(now[len(before) :])

    def _decode_last(self) -> tuple[str, str]:
        shown, known = self._ids[self._from : self._shown], self._ids[self._from :]
        return printable(self._decode(shown)), printable(self._decode(known))

    def _append(self, new: str) -> str:
        before, self.text = len(self.text), self.text + new
        if self._stop:
            # `stop` ends in the new text.
            place = self.text.find(self._stop, max(self._begins, before - len(self._stop)))
            if place >= 0:
                self.text, self.ended = self.text[: place + len(self._stop)], True
        return self.text[before:]
