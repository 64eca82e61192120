"""A text comes back from what a model made of it, at the cost that its score promises."""

from __future__ import annotations

import dataclasses
import math
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from harness.common.errors import RunFailure, UsageError
from harness.compression import codec
from harness.compute.device import Compute
from harness.config.settings import Settings
from harness.diagnostics.faults.life import forked, live, run_command
from harness.runs.folder import RunFolder
from harness.runs.load import Run
from tests import small_runs as training
from tests.conftest import Ended
from tests.zoo_models import NAMES, fresh, node, of_each_kind, randomize
from tests.zoo_tokenizers.building import fitted, tokenizer_of
from zoo.language_model import Cache, LanguageModel
from zoo_tokenizers import Tokenizer

TEXT = (
    "First Citizen:\nBefore we proceed any further, hear me speak.\n\nAll:\nSpeak, speak.\r\n" * 2
)
CPU = Compute(torch.device("cpu"), "fp32")


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return training.settings(tmp_path_factory.mktemp("compression") / "x")


@pytest.fixture(scope="module")
def characters() -> Tokenizer:
    return fitted(tokenizer_of("tokenizer=char"), TEXT)


def run_of(model: LanguageModel, tokenizer: Tokenizer, settings: Settings) -> Run:
    return Run(RunFolder(Path("run")), settings, tokenizer, model, CPU, 0, "", {})


def round_trip(run: Run, text: str) -> bytes:
    content = text.encode("utf-8", "surrogateescape")
    packed = codec.compress(run, content, lambda: None)
    assert codec.decompress(run, packed, lambda: None) == content
    return packed


def promised(run: Run, text: str) -> float:
    """The size in bytes by the score, and what the command allows beyond it."""
    nats = codec.nats_by_score(run, text.encode("utf-8", "surrogateescape"))
    return nats / math.log(2) / 8 * 1.001 + 64


@pytest.mark.parametrize("name", of_each_kind(NAMES))
def test_every_architecture(name: str, characters: Tokenizer, settings: Settings) -> None:
    torch.manual_seed(0)
    model = randomize(fresh(node(name), characters.vocab_size).double().eval())
    run = run_of(model, characters, settings)
    text = TEXT[:100]  # two windows of 64
    assert len(round_trip(run, text)) <= promised(run, text)


@pytest.mark.parametrize("tokenizer", ["char", "bytes", "bpe", "sentencepiece"])
def test_every_kind_of_tokenizer(tokenizer: str, settings: Settings) -> None:
    small = {"bpe": ["tokenizer.vocab_size=300"], "sentencepiece": ["tokenizer.vocab_size=300"]}
    learnt = fitted(tokenizer_of(f"tokenizer={tokenizer}", *small.get(tokenizer, [])), TEXT * 9)
    run = run_of(fresh(node("gru"), learnt.vocab_size).eval(), learnt, settings)
    for text in ("", "a", TEXT, "  žluťoučký\tkůň\r\n漢字 \0 speak \n"):
        assert len(round_trip(run, text)) <= promised(run, text)
    if tokenizer == "bytes":  # any file
        assert round_trip(run, bytes(range(256)).decode("utf-8", "surrogateescape"))


def test_unknown_characters_cost_what_the_score_says(
    characters: Tokenizer, settings: Settings
) -> None:
    run = run_of(fresh(node("bigram"), characters.vocab_size).eval(), characters, settings)
    known, unknown = "speak " * 20, "漢字" * 30
    added = len(round_trip(run, known + unknown + known)) - len(round_trip(run, known + known))
    assert added == pytest.approx(60 * math.log2(300 * 1_112_064) / 8, abs=2)


class Peek(LanguageModel):
    """Looks up the next token of the same call, and knows nothing where there is none."""

    def __init__(self, vocab_size: int) -> None:
        super().__init__()
        self.vocab_size, self.block_size, self.receptive_field = vocab_size, None, 1
        self.head = nn.Identity()

    def features(self, ids_BT: Tensor, cache: Cache | None = None) -> Tensor:
        self.advance(ids_BT, cache)
        known = nn.functional.one_hot(ids_BT[:, 1:], self.vocab_size).float() * 20
        return nn.functional.pad(known, (0, 0, 0, 1))


def test_a_model_that_looks_ahead_can_not_compress(
    characters: Tokenizer, settings: Settings
) -> None:
    run = run_of(Peek(characters.vocab_size), characters, settings)
    assert promised(run, TEXT) < 70
    assert len(round_trip(run, TEXT)) > len(TEXT) * math.log2(characters.vocab_size) / 8


Change = Callable[[Run], Run]


def other_weights(run: Run) -> Run:
    model = fresh(node("mlp"), run.tokenizer.vocab_size).eval()
    return dataclasses.replace(run, model=model)


def other_stride(run: Run) -> Run:
    evaluation = run.settings.eval.replace(stride=1)
    return dataclasses.replace(run, settings=run.settings.replace(eval=evaluation))


@pytest.mark.parametrize(
    ("change", "named"), [(other_weights, "model or tokenizer"), (other_stride, "stride")]
)
def test_another_run_is_refused_by_name(
    change: Change, named: str, characters: Tokenizer, settings: Settings
) -> None:
    run = run_of(fresh(node("gpt"), characters.vocab_size).eval(), characters, settings)
    packed = codec.compress(run, b"speak", lambda: None)
    with pytest.raises(UsageError, match=f"compressed with another {named}"):
        codec.decompress(change(run), packed, lambda: None)


def test_damage_is_noticed(characters: Tokenizer, settings: Settings) -> None:
    run = run_of(fresh(node("bigram"), characters.vocab_size).eval(), characters, settings)
    packed = codec.compress(run, TEXT.encode(), lambda: None)
    for at in range(len(packed)):
        damaged = bytearray(packed)
        damaged[at] ^= 1
        with pytest.raises((UsageError, RunFailure)):
            codec.decompress(run, bytes(damaged), lambda: None)
    for content in (b"", packed[:10], b"PK" + packed):
        with pytest.raises(UsageError, match="no file that harness"):
            codec.decompress(run, content, lambda: None)


def test_the_commands(tmp_path: Path, command: Callable[..., Ended], **_: Any) -> None:
    assert training.train(tmp_path, "model=bigram") == 0
    play = tmp_path / "play.txt"
    play.write_text(TEXT)
    ended = command("compress", tmp_path / "run", play)
    assert "bytes by its score" in ended.out
    packed = tmp_path / "play.txt.zoo"
    assert packed.exists()
    again = command("compress", tmp_path / "run", play)
    assert (again.code, "exists already" in again.err) == (2, True)
    command("decompress", tmp_path / "run", packed, "--out", tmp_path / "back.txt")
    assert (tmp_path / "back.txt").read_bytes() == play.read_bytes()


def test_an_empty_file_has_no_rate(tmp_path: Path, command: Callable[..., Ended]) -> None:
    assert training.train(tmp_path, "model=bigram") == 0
    (empty := tmp_path / "empty").touch()
    ended = command("compress", tmp_path / "run", empty)
    assert ended.code == 0
    assert "bits per byte" not in ended.out
    text, compressed, by_score, _ = map(str.strip, ended.out.splitlines())
    size = (tmp_path / "empty.zoo").stat().st_size
    assert (text, compressed) == ("0 bytes of text", f"{size} bytes compressed")
    assert by_score == "0 bytes by its score"


def test_a_signal_ends_them_with_nothing_written(tmp_path: Path) -> None:
    """At once, also in a library's call."""
    assert training.train(tmp_path, "model=bigram") == 0
    play, packed = tmp_path / "play.txt", tmp_path / "play.txt.zoo"
    play.write_text(TEXT)
    forked(lambda: run_command(["harness.compress", f"{tmp_path}/run", str(play)]))
    before = sorted(tmp_path.iterdir())

    def told() -> None:
        intervals, calls = codec._intervals, [0]

        def counted(*arguments: Any) -> Any:
            calls[0] += 1
            if calls[0] == 9:
                os.kill(os.getpid(), signal.SIGTERM)
            return intervals(*arguments)

        codec._intervals = counted

    for argv in (["compress", play, "--out", "new"], ["decompress", packed, "--out", "new"]):
        name, file, *options = map(str, argv)
        options[-1] = str(tmp_path / options[-1])
        life = live([f"harness.{name}", f"{tmp_path}/run", file, *options], told)
        assert life.code == -signal.SIGTERM, life.output
        assert sorted(tmp_path.iterdir()) == before
