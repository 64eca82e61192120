"""Calibration against closed forms, plain loops, and the exact evaluation."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from harness.compute.device import Compute
from harness.data.encoded import Split
from harness.evaluation import nats as nats_module
from harness.evaluation.calibration import (
    BINS,
    Calibration,
    Floats,
    Pass,
    TokenStatistics,
    calibration_error,
    equal_mass_bins,
    equal_width_bins,
    fit_temperature,
    reliability,
    token_statistics,
)
from harness.evaluation.nats import Measure, nats_N
from harness.evaluation.score import score_of, token_nats
from harness.evaluation.surprise import by_frequency, most_surprising, passages
from harness.report.calibration_page import PageInfo, page
from harness.report.drawing import svg
from harness.report.drawing.style import DARK, LIGHT
from tests.conftest import Ended
from tests.zoo_models import NAMES, VOCAB, maker, random_ids
from zoo_tokenizers import Tokenizer
from zoo_tokenizers.bytes import Bytes
from zoo_tokenizers.characters import Characters

Command = Callable[..., Ended]
CPU = Compute(torch.device("cpu"), "fp32")


def fixed(logits_NV: Tensor, targets_N: Tensor) -> Pass:
    """A model that always gives these logits, on a text that has these targets."""

    def one_pass(measure: Measure) -> Floats:
        return measure(logits_NV, targets_N).numpy()

    return one_pass


# The temperature


def calibrated() -> tuple[Tensor, Tensor]:
    """Logits under which each target comes exactly as often as they say: three contexts, whose
    probabilities are sixteenths and eighths."""
    sixteenths = torch.tensor([[8, 4, 2, 2], [1, 1, 13, 1], [4, 4, 4, 4]]).double()
    rows, targets = [], []
    for row in sixteenths:
        for id_, count in enumerate(row.int().tolist()):
            rows += [row.log()] * count
            targets += [id_] * count
    return torch.stack(rows), torch.tensor(targets)


@pytest.mark.parametrize("factor", [0.05, 0.3, 1.0, 1.5, 4.0, 20.0])
def test_finds_the_factor_that_the_logits_were_multiplied_by(factor: float) -> None:
    logits, targets = calibrated()
    found = fit_temperature(fixed(factor * logits + 3.0, targets))
    assert found.value == pytest.approx(factor, rel=2e-4)
    entropy = nats_N(logits, targets).mean().item()
    assert found.nats_per_token[1] == pytest.approx(entropy, rel=1e-7)
    assert found.nats_per_token[0] >= found.nats_per_token[1]
    assert (found.nats_per_token[0] == found.nats_per_token[1]) == (factor == 1)
    assert found.passes <= 10
    assert found.is_best


@pytest.mark.parametrize("seed", range(5))
def test_no_temperature_of_a_fine_grid_is_better(seed: int) -> None:
    """Nor is it ever worse than none."""
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(400, 12, generator=generator).double()
    right = torch.rand(400, generator=generator) < 0.6
    targets = torch.where(right, logits.argmax(-1), random_ids(1, 400, seed, 12)[0])
    found = fit_temperature(fixed(logits, targets))
    grid = [
        nats_N(logits / temperature, targets).mean().item()
        for temperature in np.geomspace(0.03, 40, 2000)
    ]
    assert found.nats_per_token[1] <= min(grid) + 1e-7
    assert found.nats_per_token[1] <= found.nats_per_token[0]
    at = nats_N(logits / found.value, targets).mean().item()
    assert found.nats_per_token[1] == pytest.approx(at, rel=1e-12)


def test_logits_that_say_nothing_have_no_temperature() -> None:
    found = fit_temperature(fixed(torch.full((9, 4), 2.5), torch.zeros(9, dtype=torch.int64)))
    assert (found.value, found.passes) == (1, 1)


@pytest.mark.parametrize("right", [True, False])
def test_where_no_temperature_is_best_it_says_so(right: bool) -> None:
    """Always right: the colder the better. Always wrong: the hotter."""
    logits = torch.tensor([[4.0, 0.0, 0.0]]).expand(50, -1)
    found = fit_temperature(fixed(logits, torch.full((50,), 0 if right else 1)))
    assert not found.is_best
    assert (found.value < 1) == right
    assert found.nats_per_token[1] < found.nats_per_token[0]


def test_logits_of_minus_infinity() -> None:
    """Of ids that a model rules out."""
    logits, targets = calibrated()
    ruled_out = torch.full((len(logits), 2), -torch.inf).double()
    found = fit_temperature(fixed(torch.cat([2 * logits, ruled_out], dim=-1), targets))
    assert found.value == pytest.approx(2, rel=2e-4)


# The calibration error


def by_the_book(confidence: list[float], correct: list[bool]) -> float:
    """Equation 3 of Guo et al., bin by bin: ((m - 1) / M, m / M]."""
    error = 0.0
    for m in range(1, BINS + 1):
        inside = [n for n, c in enumerate(confidence) if (m - 1) / BINS < c <= m / BINS]
        if inside:
            right = sum(correct[n] for n in inside) / len(inside)
            sure = sum(confidence[n] for n in inside) / len(inside)
            error += len(inside) / len(confidence) * abs(right - sure)
    return error


def test_the_error_is_the_books() -> None:
    draw = np.random.default_rng(0)
    confidence = np.concatenate([draw.random(2000), np.arange(1, BINS + 1) / BINS, [1.0]])
    correct = draw.random(len(confidence)) < confidence**2
    found = calibration_error(reliability(confidence, correct, equal_width_bins(confidence)))
    assert found == pytest.approx(by_the_book(confidence.tolist(), correct.tolist()), abs=1e-12)
    assert found > 0.1


@pytest.mark.parametrize("place", [equal_width_bins, equal_mass_bins])
def test_the_error_in_closed_form(place: Callable[[Floats], Any]) -> None:
    """90 tokens at 0.9, of which 60 come true; 10 at 0.3, of which 3 do."""
    confidence = np.repeat([0.9, 0.3], [90, 10])
    correct = np.arange(100) < 60
    correct[90:93] = True
    bins = reliability(confidence, correct, place(confidence))
    assert [each.tokens for each in bins] == [10, 90]
    assert calibration_error(bins) == pytest.approx(0.9 * (0.9 - 60 / 90))


@pytest.mark.parametrize("place", [equal_width_bins, equal_mass_bins])
def test_what_is_calibrated_has_almost_no_error(place: Callable[[Floats], Any]) -> None:
    """Of 200,000 draws it is below what chance gives 15 bins; of what is half as true, not."""
    draw = np.random.default_rng(1)
    confidence = draw.random(200_000)
    for share, low, high in ((1.0, 0.0, 0.004), (0.5, 0.24, 0.26)):
        correct = draw.random(len(confidence)) < share * confidence
        assert low <= calibration_error(reliability(confidence, correct, place(confidence))) < high


def test_bins_of_equal_mass_have_it_and_do_not_depend_on_the_order() -> None:
    draw = np.random.default_rng(2)
    confidence = draw.random(1500) ** 4
    places = equal_mass_bins(confidence)
    assert np.bincount(places).tolist() == [100] * BINS
    assert max(confidence[places == 0]) < min(confidence[places == 1])
    order = draw.permutation(1500)
    assert (equal_mass_bins(confidence[order]) == places[order]).all()
    assert (
        len(set(equal_mass_bins(np.array([0.5] * 7 + [0.6] * 3)).tolist())) == 2
    )  # equals stay together


# What is seen of each token


@pytest.mark.parametrize("name", NAMES)
def test_every_architecture_is_looked_at_token_by_token(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once each, in the windows of the exact evaluation, whatever the chunks; and the temperature
    is the one that was asked for."""
    monkeypatch.setattr(nats_module, "CHUNK_LOGITS", 7 * VOCAB)
    model = maker(name, "train.seq_len=32")()
    ids = random_ids(1, 75)[0].numpy()
    unused = np.arange(VOCAB) % 5 == 0

    def one_pass(measure: Measure) -> Floats:
        return token_nats(model, ids, CPU, batch_size=3, measure=measure)

    found = token_statistics(one_pass, ids[1:], 2.0, unused)
    nats = token_nats(model, ids, CPU)
    assert found.nats.shape == (74, 2)
    np.testing.assert_allclose(found.nats[:, 0], nats, rtol=1e-9)
    # All of it again from the probabilities of every id.
    p = one_pass(lambda logits, targets: logits.softmax(-1))
    np.testing.assert_allclose(found.confidence[:, 0], p.max(-1), rtol=1e-9)
    np.testing.assert_allclose(found.unused, p[:, unused].sum(-1), rtol=1e-9)
    assert (found.guesses == (-p).argsort(-1)[:, :3]).all()
    np.testing.assert_allclose(found.probabilities, -np.sort(-p)[:, :3], rtol=1e-9)
    root = p**0.5 / (p**0.5).sum(-1, keepdims=True)  # temperature 2
    np.testing.assert_allclose(found.confidence[:, 1], root.max(-1), rtol=1e-9)
    np.testing.assert_allclose(found.nats[:, 1], -np.log(root[range(74), ids[1:]]), rtol=1e-9)
    assert (found.correct == (p.argmax(-1) == ids[1:])).all()


def observed(nats: list[float], targets: list[int], vocab_size: int = 256) -> TokenStatistics:
    """The likeliest three are always 0, 1 and 2."""
    n = len(nats)
    return TokenStatistics(
        targets=np.array(targets),
        nats=np.repeat(np.array(nats, dtype=np.float64)[:, None], 2, axis=1),
        confidence=np.full((n, 2), 0.5),
        guesses=np.tile(np.arange(3), (n, 1)),
        probabilities=np.full((n, 3), 0.25),
        unused=np.full(n, 0.125),
    )


def test_loss_by_frequency() -> None:
    counts = np.array([1000, 0, 0, 1, 9, 10, 99, 100])
    targets = [0, 0, 0, 1, 3, 4, 5, 6, 6]
    bands = by_frequency(observed([1, 2, 6, 9, 4, 6, 1, 2, 3], targets), counts)
    assert [(band.least, band.most) for band in bands] == [
        (0, 0), (1, 9), (10, 99), (100, 999), (1000, None)
    ]  # fmt: skip
    assert [band.ids for band in bands] == [2, 2, 2, 1, 1]
    assert [band.tokens for band in bands] == [1, 2, 3, 0, 3]
    assert [band.nats_per_token for band in bands] == [9, 5, 2, None, 3]
    assert [band.accuracy for band in bands] == [0, 0, 0, None, 1]
    total = sum(band.tokens * (band.nats_per_token or 0) for band in bands)
    assert total == pytest.approx(1 + 2 + 6 + 9 + 4 + 6 + 1 + 2 + 3)


@pytest.mark.parametrize("length", [1, 4, 30, 100])
def test_the_most_surprising_passages_are_the_worst_apart(length: int) -> None:
    nats = np.random.default_rng(3).exponential(size=100)
    begins = most_surprising(nats, length, 5)
    assert len(begins) == min(5, 100 // length) or length == 30
    taken: set[int] = set()
    for begin in begins:
        free = [
            start
            for start in range(100 - length + 1)
            if not taken & set(range(start, start + length))
        ]
        means = {start: nats[start : start + length].mean() for start in free}
        assert means[begin] == pytest.approx(max(means.values()))
        taken |= set(range(begin, begin + length))
    assert most_surprising(nats[:9], 30, 5) == [0]


# The page


class Page(HTMLParser):
    """Its text, and what stands in its tags."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(content)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def marks(self) -> list[dict[str, str | None]]:
        return [attributes for _, attributes in self.tags if attributes.get("class") == "m"]


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


# The command


def test_a_run_is_calibrated(command: Command, train_run: Callable[..., Path]) -> None:
    run = train_run("model=bigram", "train.steps=20", "optimizer.lr=3e-2")
    plain = json.loads(command("evaluate", run, "--json").out)
    ended = command("evaluate", run, "--calibration", "--json")
    assert (ended.code, ended.err) == (0, "")
    found, saved = json.loads(ended.out), json.loads((run / "calibration.json").read_text())
    summary = json.loads((run / "summary.json").read_text())
    for name in ("nats_per_token", "bits_per_byte"):
        assert found[name][0] == pytest.approx(plain[name], rel=1e-6)
        assert found[name][0] == pytest.approx(summary["test"][name], rel=1e-6)
    assert found["fitted_nats_per_token"][0] == pytest.approx(summary["val"]["nats_per_token"])
    assert found["fitted_nats_per_token"][1] < found["fitted_nats_per_token"][0]
    assert found.items() >= {name: saved[name] for name in saved.keys() & found.keys()}.items()
    assert sum(band["tokens"] for band in saved["by_frequency"]) == plain["tokens"]
    assert sum(each["tokens"] for each in saved["reliability"]["before"]) == plain["tokens"]
    worst = saved["surprising"][0]
    cost = sum(mark["nats"] for mark in worst["marks"])
    assert cost == pytest.approx(120 * worst["nats_per_token"], rel=1e-5)
    read = Page((run / "calibration.html").read_text())
    assert f"{found['temperature']:.3f}" in read.text
    assert f"{found['expected_calibration_error'][0]:.4f}" in read.text
    shown = command("evaluate", run, "--calibration").out
    lines = [line.split(maxsplit=1) for line in shown.splitlines()]
    assert ["temperature", str(found["temperature"])] in lines
    assert ["nats_per_token", " → ".join(map(str, found["nats_per_token"]))] in lines


def test_a_lossy_tokenizer_is_calibrated(
    command: Command, train_run: Callable[..., Path], assets: Path
) -> None:
    """It has no bits per byte; its text is shown as it decodes."""
    run = train_run(
        "model=mlp", "model.n_embd=4", "model.n_hidden=4", "tokenizer=bert", "train.steps=1",
        "data.split=[0.96,0.02,0.02]", f"assets=[{assets}]",
    )  # fmt: skip
    found = json.loads(command("evaluate", run, "--calibration", "--json").out)
    assert found["bits_per_byte"] == [None, None]
    assert found["unused_probability"] > 0.9  # 30,522 ids, and the text has few
    # An untrained model's loss, ln V, would be that of a uniform guess among those few.
    seen = sum(band["ids"] for band in json.loads((run / "calibration.json").read_text())[
        "by_frequency"
    ][1:])  # fmt: skip
    assert found["unused_nats_per_token"] == pytest.approx(math.log(30522 / seen), rel=0.05)
    read = Page((run / "calibration.html").read_text())
    assert "green bottles, hanging on the wall ; and" in read.text
    assert "nats per token" in read.text


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--split", "val"), "choose --split test or train"),
        ((), "data.split=[0.9, 0, 0.1] leaves no val split"),
    ],
)
def test_no_temperature_without_validation(
    options: tuple[str, ...], words: str, command: Command, train_run: Callable[..., Path]
) -> None:
    run = train_run("model=bigram", "train.steps=1", "data.split=[0.9,0,0.1]")
    ended = command("evaluate", run, "--calibration", *options)
    assert (ended.code, ended.out) == (2, "")
    assert words in ended.err
    assert not (run / "calibration.html").exists()


def test_log_of_the_smallest_p_is_finite() -> None:
    """Of a target that the model all but rules out."""
    logits = torch.tensor([[0.0, -1e4]])
    nats = token_statistics(
        fixed(logits, torch.tensor([1])), np.array([1]), 1.0, np.zeros(2, bool)
    ).nats
    assert nats[0].tolist() == [1e4, 1e4]
    assert math.isfinite(fit_temperature(fixed(logits, torch.tensor([1]))).value)
