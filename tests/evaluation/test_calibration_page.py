"""The page of a calibration: text stays text, and each token has the colour of its surprise."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from harness.data.encoded import Split
from harness.evaluation.calibration import Calibration, fit_temperature
from harness.evaluation.score import score_of
from harness.evaluation.surprise import by_frequency, passages
from harness.report.calibration_page import PageInfo, page
from harness.report.drawing import svg
from harness.report.drawing.style import DARK, LIGHT
from tests.evaluation.calibrating import Page, calibrated, fixed, observed
from zoo_tokenizers import Tokenizer
from zoo_tokenizers.bytes import Bytes
from zoo_tokenizers.characters import Characters


def drawn(text: str, tokenizer: Tokenizer, nats: list[float] | None = None) -> str:
    """The page of a model that is surprised by every token of a text but the first."""
    ids = tokenizer.encode(text)
    nats = [1.0] * (len(ids) - 1) if nats is None else nats
    seen = observed(nats, ids[1:].tolist(), tokenizer.vocab_size)
    split = Split(ids, len(text.encode()), {})
    score = score_of(seen.nats[:, 0], split, tokenizer, None)
    temperature = fit_temperature(fixed(*calibrated()))
    found = Calibration(temperature, seen, (score, score))
    info = PageInfo("<b>gpt", "text", "bytes", "test", 7, "fp32", "runs/<script>alert(1)")
    bands = by_frequency(seen, np.bincount(ids, minlength=tokenizer.vocab_size))
    return page(info, found, bands, passages(seen, int(ids[0]), tokenizer, 200, 2))


ADVERSARIAL = "a<script>alert(1)</script>\"'&<img src=x onerror=alert(1)>\x00\x1b[31m\u202e"


@pytest.mark.parametrize("kind", [Bytes, Characters])
def test_no_text_of_a_corpus_becomes_html(kind: type[Tokenizer]) -> None:
    tokenizer = kind()
    tokenizer.fit([ADVERSARIAL])
    content = drawn(ADVERSARIAL, tokenizer)
    read = Page(content)
    assert [tag for tag, _ in read.tags].count("script") == 1  # our own
    assert not [tag for tag, _ in read.tags if tag in ("img", "link", "iframe")]
    assert not [name for _, attributes in read.tags for name in attributes if name[:2] == "on"]
    assert "src=x onerror=" in read.text
    assert "runs/<script>alert(1)" in read.text
    assert not {"\x00", "\x1b", "\u202e"} & set(content)


class Chunks(Tokenizer):
    """Tokens that are whole tags, as a learnt vocabulary may have them."""

    pieces = (b"x", b'"><img src=x onerror=alert(1)>', b"</pre><script>alert(1)</script>")

    def encode(self, text: str) -> Any:
        return np.array([0, 1, 0, 2, 1], dtype=np.uint8)


def test_no_token_of_a_vocabulary_becomes_html() -> None:
    """Neither in the text nor in what is said of it, the guesses included."""
    read = Page(drawn("", Chunks()))
    assert [tag for tag, _ in read.tags].count("script") == 1
    assert "img" not in [tag for tag, _ in read.tags]
    assert len(read.marks()) == 4
    for mark in read.marks():
        assert mark.keys() == {"class", "style", "title"}
        assert "onerror=alert(1)" in (mark["title"] or "")


def test_the_page_needs_nothing_else() -> None:
    content = drawn("to be or not to be", Bytes())
    for _, attributes in Page(content).tags:
        assert not {"src", "href"} & attributes.keys() or attributes["href"].startswith("#")  # type: ignore[union-attr]
    assert "http" not in content
    assert "url(#" in content or "url(" not in content
    assert "prefers-color-scheme:dark" in content
    assert 'name="viewport"' in content
    for token in svg.PLACEHOLDERS.series:
        assert token not in content


def test_a_token_is_coloured_by_its_own_surprise() -> None:
    """And says what it cost and what was likelier."""
    text = "xabc"
    marks = Page(drawn(text, Bytes(), [0.0, 4.0, 2.0])).marks()
    # The scale ends at 99 % of the tokens: by interpolation at 3.96.
    assert [mark["style"] for mark in marks] == ["--h:0%", "--h:100%", "--h:51%"]
    assert marks[1]["title"] is not None
    assert marks[1]["title"].startswith("'b': 4.00 nats, p = 0.018; likeliest were ")
    assert marks[1]["title"].endswith(r"'\x00' 0.25, '\x01' 0.25, '\x02' 0.25")


def test_a_character_of_several_tokens_is_one_mark() -> None:
    marks = Page(drawn("a€b", Bytes(), [1.0, 2.0, 3.0, 0.5])).marks()
    assert len(marks) == 2
    assert marks[0]["title"] is not None
    assert len(marks[0]["title"].splitlines()) == 3
    assert marks[0]["style"] == "--h:100%"  # 6 nats together


def contrast(one: str, other: str) -> float:
    """Of two colours (WCAG 2.2, 1.4.3)."""

    def luminance(colour: str) -> float:
        parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return sum(w * p for w, p in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize(("theme", "heat"), [(LIGHT, LIGHT["heat"]), (DARK, DARK["heat"])])
def test_ink_is_legible_on_the_hottest(theme: dict[str, str], heat: str) -> None:
    assert contrast(theme["ink"], heat) >= 4.5
    assert contrast(theme["tint"], heat) >= 1.8  # and the hottest stands out
