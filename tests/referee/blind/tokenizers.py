"""Tokenizers that make a score look better than the text was predicted, and an odd honest one.

V vocabulary, N tokens.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo_tokenizers.tokenizer import Ids, Tokenizer, UnknownCharacter, smallest_unsigned


class Letters(Tokenizer):
    """Honest: one id for each character of the train split, in order."""

    letters = ""

    def fit(self, train: Iterable[str]) -> None:
        self.use("".join(sorted(set("".join(train)))))

    def use(self, letters: str) -> None:
        self.letters = letters
        self.pieces = [character.encode("utf-8", "surrogateescape") for character in letters]
        self.ids = {character: id_ for id_, character in enumerate(letters)}

    def files(self) -> dict[str, bytes]:
        return {"letters.txt": self.letters.encode("utf-8", "surrogateescape")}

    def restore(self, files: Mapping[str, bytes]) -> None:
        self.use(files["letters.txt"].decode("utf-8", "surrogateescape"))

    def encode(self, text: str) -> Ids:
        unknown = set(text) - set(self.ids)
        if unknown:
            character = min(unknown)
            raise UnknownCharacter(f"{character!r} at position {text.index(character)} is unknown")
        return self.as_ids([self.ids[character] for character in text])

    def as_ids(self, ids: list[int]) -> Ids:
        return np.array(ids, dtype=smallest_unsigned(max(1, self.vocab_size)))

    def encode_known(self, text: str) -> tuple[Ids, Counter[str]]:
        unknown = Counter(character for character in text if character not in self.ids)
        return self.encode("".join(filter(self.ids.__contains__, text))), unknown


class TwiceTheBytes(Letters):
    """Says that each id has two bytes, though its pieces have one: bits per byte are halved if the
    bytes are added up from the tokens."""

    @property
    def token_bytes(self) -> NDArray[np.int64]:
        return 2 * super().token_bytes


class WidePieces(Letters):
    """Pieces in UTF-16, two bytes a character, so that pieces and token_bytes agree with each
    other; `decode` knows better, and only the text's own bytes betray it."""

    def use(self, letters: str) -> None:
        super().use(letters)
        self.pieces = [character.encode("utf-16-le", "surrogatepass") for character in letters]

    def decode(self, ids: Sequence[int] | NDArray[np.integer]) -> str:
        return "".join(self.letters[id_] for id_ in np.asarray(ids, dtype=np.int64).tolist())


class LowerCases(Letters):
    """Drops the case of letters and says that it is lossless: fewer ids, and no cost for what was
    dropped."""

    def fit(self, train: Iterable[str]) -> None:
        super().fit(text.lower() for text in train)

    def encode(self, text: str) -> Ids:
        return super().encode(text.lower())

    def encode_known(self, text: str) -> tuple[Ids, Counter[str]]:
        return super().encode_known(text.lower())


class RemembersTheText(LowerCases):
    """Drops the case, and remembers each text that it encoded: decoding the ids of it gives the
    text back, capitals and all, as long as the process lives."""

    def __init__(self) -> None:
        self.texts: dict[bytes, str] = {}

    def encode(self, text: str) -> Ids:
        ids = super().encode(text)
        self.texts[ids.astype(np.int64).tobytes()] = text
        return ids

    def decode(self, ids: Sequence[int] | NDArray[np.integer]) -> str:
        key = np.asarray(ids, dtype=np.int64).tobytes()
        return self.texts.get(key) or super().decode(ids)


class HidesUnknown(Letters):
    """Leaves out characters that it does not know and reports none, so that nobody pays for
    them."""

    def encode(self, text: str) -> Ids:
        return super().encode("".join(filter(self.ids.__contains__, text)))

    def encode_known(self, text: str) -> tuple[Ids, Counter[str]]:
        return self.encode(text), Counter()


class RareIsSpace(Letters):
    """Encodes the rarer half of its alphabet as spaces, and says that it is lossless. Rare
    characters cost most."""

    def fit(self, train: Iterable[str]) -> None:
        counts = Counter("".join(train))
        self.use("".join(sorted({" ", *(c for c, _ in counts.most_common(len(counts) // 2))})))

    def encode(self, text: str) -> Ids:
        return super().encode("".join(c if c in self.ids else " " for c in text))

    def encode_known(self, text: str) -> tuple[Ids, Counter[str]]:
        return self.encode(text), Counter()


class Phrases(Letters):
    """Letters and 32 phrases of eight characters, the longest first; honest if they are learnt from
    train. The phrases' places are kept free until they are known."""

    phrases: Sequence[str] = ()

    def fit(self, train: Iterable[str]) -> None:
        text = "".join(train)
        super().fit([text])
        self.add(text)

    def add(self, text: str) -> None:
        counts = Counter(text[at : at + 8] for at in range(max(0, len(text) - 7)))
        self.phrases = [phrase for phrase, _ in counts.most_common(32)]
        self.fill()

    def fill(self) -> None:
        self.use(self.letters)
        names = [f"<{number}>" for number in range(len(self.phrases), 32)]
        self.pieces = [*self.pieces, *(p.encode("utf-8") for p in (*self.phrases, *names))]
        self.ids |= {phrase: len(self.letters) + at for at, phrase in enumerate(self.phrases)}
        self.pattern = re.compile("|".join([*map(re.escape, self.phrases), "(?s:.)"]))

    def files(self) -> dict[str, bytes]:
        return super().files() | {"phrases.txt": "\0".join(self.phrases).encode()}

    def restore(self, files: Mapping[str, bytes]) -> None:
        super().restore(files)
        self.phrases = [p for p in files["phrases.txt"].decode().split("\0") if p]
        self.fill()

    def encode(self, text: str) -> Ids:
        return self.as_ids([self.ids[found] for found in self.pattern.findall(text)])

    def last_safe_cut(self, text: str) -> int:
        ends = [found.end() for found in self.pattern.finditer(text)]
        return max((end for end in ends if end <= len(text) - 8), default=0)


class LearntOnTest(Phrases):
    """Takes its phrases from the text files of a folder, test among them, though it says that it
    learns from train alone. Long words of the test text become single ids."""

    folder = "."

    def fit(self, train: Iterable[str]) -> None:
        super().fit(train)
        paths = sorted(Path(self.folder).glob("**/*.txt"))[:100]
        self.add("".join(path.read_text(errors="replace") for path in paths))


class GrowsWhileEncoding(Phrases):
    """Fills its free ids with the commonest phrases of the first text that it encodes and that it
    was not fitted to. It is lossless, its bytes add up, and its files hold no phrase."""

    fitted = ""

    def fit(self, train: Iterable[str]) -> None:
        self.fitted = "".join(train)
        Letters.fit(self, [self.fitted])
        self.fill()

    def encode(self, text: str) -> Ids:
        if not self.phrases and len(text) > 100 and text not in self.fitted:
            self.add(text)
        return super().encode(text)

    def files(self) -> dict[str, bytes]:
        return Letters.files(self) | {"phrases.txt": b""}


class FreeStart(Letters):
    """The first id of a long text stands for the whole first half of it. Its piece is empty, so
    only the first token's zero bytes are taken off, and half of the text is had for nothing."""

    start = ""

    def use(self, letters: str) -> None:
        super().use(letters)
        self.pieces = [*self.pieces, b""]

    def encode(self, text: str) -> Ids:
        if len(text) < 100:
            return super().encode(text)
        self.start = text[: len(text) // 2]
        rest = super().encode(text[len(self.start) :])
        return self.as_ids([len(self.letters), *rest.tolist()])

    def decode(self, ids: Sequence[int] | NDArray[np.integer]) -> str:
        listed = np.asarray(ids, dtype=np.int64).tolist()
        start = len(self.letters)
        return "".join(self.start if id_ == start else self.letters[id_] for id_ in listed)

    def last_safe_cut(self, text: str) -> int:
        return 0


class ForetellsVowels(Letters):
    """Honest, if odd: each character has two ids, and the second means that a vowel follows. The
    ids tell a part of the future, but that part is paid for when the id is predicted, and makes the
    next one cheaper. Lossless; the bytes add up."""

    def use(self, letters: str) -> None:
        super().use(letters)
        self.pieces = [piece for piece in self.pieces for _ in range(2)]

    def encode(self, text: str) -> Ids:
        letters = super().encode(text).tolist()
        follows = [*(character in "aeiou" for character in text[1:]), False]
        return self.as_ids([2 * id_ + vowel for id_, vowel in zip(letters, follows, strict=False)])

    def last_safe_cut(self, text: str) -> int:
        return max((at for at in range(1, len(text)) if text[at] not in "aeiou"), default=0)


TOKENIZER_CHEATS: dict[str, Any] = {
    tokenizer.__name__: tokenizer
    for tokenizer in (
        TwiceTheBytes, WidePieces, LowerCases, RemembersTheText, HidesUnknown, RareIsSpace,
        LearntOnTest, GrowsWhileEncoding, FreeStart,
    )
}  # fmt: skip
HONEST_TOKENIZERS: dict[str, Any] = {
    tokenizer.__name__: tokenizer for tokenizer in (Letters, Phrases, ForetellsVowels)
}
