"""Texts that a run has not seen: scored as a split is, and the loss of every token."""

from __future__ import annotations

import ast
import hashlib
import itertools
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.common.errors import UsageError
from harness.data.alone import encode_alone
from harness.data.assets import Assets
from harness.data.encoded import UNICODE_SCALARS
from harness.evaluation.score import score_of
from harness.evaluation.token_losses import write_tokens
from harness.runs.resume import resumed_settings
from tests import small_runs
from tests.conftest import Ended
from tests.small_runs import TEXT, TRAIN_SHARE
from tests.training.documents import LINES
from zoo_tokenizers.bytes import Bytes

Command = Callable[..., Ended]
TEST = TEXT.encode()[int((0.5 + TRAIN_SHARE / 2) * len(TEXT.encode())) :]
SCORE = ("nats_per_token", "bits_per_byte", "perplexity", "tokens", "bytes", "stride", "unknown")


def evaluated(command: Command, run: Path, *options: object) -> dict[str, Any]:
    ended = command("evaluate", run, "--json", *options)
    assert ended.code == 0, ended.err
    return json.loads(ended.out)


def lines_of(path: Path) -> list[dict[str, str]]:
    head, *lines = path.read_text().splitlines()
    return [dict(zip(head.split("\t"), line.split("\t"), strict=True)) for line in lines]


@pytest.mark.parametrize("which", ["finished_run", "finished_bigram"])
def test_the_test_split_given_as_a_text_has_the_test_score(
    which: str, command: Command, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """Exactly, and so does the split whose losses are written."""
    run, out = request.getfixturevalue(which), tmp_path / "out.tsv"
    (tmp_path / "test.txt").write_bytes(TEST)
    expected = json.loads((run / "summary.json").read_text())["test"]
    found = evaluated(command, run, "--text", f"own={tmp_path / 'test.txt'}", "--tokens", out)
    (text,) = found["texts"]
    assert {name: text[name] for name in SCORE} == expected
    assert (text["text"], text["file"]) == ("own", str(tmp_path / "test.txt"))
    assert found["stride"] == expected["stride"]
    lines = lines_of(out)
    assert b"".join(bytes_of(line["token"]) for line in lines) == TEST
    starts = np.cumsum([0, *(int(line["bytes"]) for line in lines)])
    assert [int(line["byte"]) for line in lines] == starts[:-1].tolist()
    assert lines[0]["nats"] == ""
    nats = sum(float(line["nats"]) for line in lines[1:])
    assert nats == pytest.approx(expected["nats_per_token"] * expected["tokens"], rel=1e-12)
    assert evaluated(command, run, "--split", "test", "--tokens", out)["tokens"] == text["tokens"]
    assert [line | {"text": "own"} for line in lines_of(out)] == lines


def bytes_of(token: str) -> bytes:
    value = ast.literal_eval(token)
    return value.encode() if isinstance(value, str) else value


def test_several_texts_each_by_itself(
    command: Command, finished_bigram: Path, tmp_path: Path
) -> None:
    contents = {"plain": b"green bottles", "odd": b"\xff'\t\"\0\n=1+1\r\xed\xa0\x80\xef\xbb\xbf"}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    pairs, out = [f"{name}={tmp_path / name}" for name in contents], tmp_path / "out.tsv"
    both = evaluated(command, finished_bigram, "--text", *pairs, "--tokens", out)["texts"]
    assert [text["text"] for text in both] == list(contents)
    for text, pair in zip(both, pairs, strict=True):
        assert evaluated(command, finished_bigram, "--text", pair)["texts"] == [text]
    for name, content in contents.items():
        tokens = [line["token"] for line in lines_of(out) if line["text"] == name]
        assert b"".join(map(bytes_of, tokens)) == content
        assert all(token.startswith(("'", "b'")) for token in tokens)
    ended = command("evaluate", finished_bigram, "--text", pairs[0], "--text", pairs[1])
    assert ended.err == ""
    *_, head, plain, odd = (line.split() for line in ended.out.splitlines())
    assert head == ["text", "tokens", "bytes", "unknown", "nats/token", "bits/byte"]
    assert plain == ["plain", "12", "12", "0", *(f"{score:.5g}" for score in scores_of(both[0]))]
    assert odd[:2] == ["odd", str(len(contents["odd"]) - 1)]


def scores_of(text: dict[str, Any]) -> tuple[float, float]:
    return text["nats_per_token"], text["bits_per_byte"]


def test_unknown_characters_are_said_and_paid_for(
    command: Command, finished_run: Path, tmp_path: Path
) -> None:
    known, text = tmp_path / "known", tmp_path / "text"
    known.write_text("green bottles on the wall" * 3)
    text.write_text("Ωgreen bottles Ω日on the wall" + "green bottles on the wall" * 2)
    out, pair = tmp_path / "out.tsv", f"greek={text}"
    ended = command("evaluate", finished_run, "--json", "--text", pair, "--tokens", out)
    assert ended.err == (
        "note: greek has 3 characters that are not in train ('Ω', '日'); bits per byte include "
        "their cost, but the model does not see them\n"
    )
    (found,) = json.loads(ended.out)["texts"]
    (plain,) = evaluated(command, finished_run, "--text", f"known={known}")["texts"]
    cost = 3 * (math.log(75 + 3) + math.log(UNICODE_SCALARS))
    nats = plain["nats_per_token"] * 74 + cost
    assert (found["unknown"], found["tokens"], found["bytes"]) == (3, 74, 74 + 7)
    assert found["nats_per_token"] == pytest.approx(nats / 74)
    assert found["bits_per_byte"] == pytest.approx(nats / math.log(2) / 81)
    lines = lines_of(out)
    assert b"".join(bytes_of(line["token"]) for line in lines) == text.read_bytes()
    assert sum(float(line["nats"] or 0) for line in lines) == pytest.approx(nats)
    strangers = [line for line in lines if line["id"] == ""]
    assert [line["token"] for line in strangers] == ["'Ω'", "'Ω'", "'日'"]
    assert [int(line["byte"]) for line in strangers] == [0, 16, 18]
    assert [line["nats"] for line in lines].index("") == 1  # the first that the model sees


def test_the_text_of_the_training_is_named(
    command: Command, finished_bigram: Path, tmp_path: Path
) -> None:
    (tmp_path / "all.txt").write_text(TEXT)
    ended = command("evaluate", finished_bigram, "--text", f"all={tmp_path / 'all.txt'}")
    assert "note: all is the text that this run was trained on" in ended.err


def test_a_lossy_tokenizer_is_said(tmp_path: Path) -> None:
    class Upper(Bytes):
        lossless = False

        def encode(self, text: str) -> np.ndarray:
            return super().encode(text.upper())

    (tmp_path / "text").write_text("To be")
    texts = encode_alone({"hamlet": str(tmp_path / "text")}, "", Upper(), Assets((), tmp_path))
    (note,) = texts["hamlet"].notes("hamlet", ())
    assert note.startswith("the tokenizer is lossy: it changes 3 of 5 characters")
    score = score_of(np.ones(4, dtype=np.float32), texts["hamlet"].split, Upper(), None)
    assert score.bits_per_byte is None
    write_tokens(tmp_path / "out.tsv", {"hamlet": (texts["hamlet"], score)}, Upper())
    assert lines_of(tmp_path / "out.tsv")[2] == {
        "text": "hamlet", "byte": "", "bytes": "", "id": "32", "token": "' '", "nats": "1.0"
    }  # fmt: skip


REFUSED: dict[str, tuple[tuple[str, ...], str]] = {
    "no name": (("--text", "{folder}/good"), "--text {folder}/good should be NAME=FILE"),
    "twice": (("--text", "a=x", "a=y"), "--text: two texts have the name a"),
    "no file": (("--text", "a={folder}/none"), "--text a={folder}/none can't be read: No such"),
    "a folder": (("--text", "a={folder}"), "--text a={folder} can't be read: Is a directory"),
    "empty": (("--text", "a={folder}/empty"), "empty has nothing to score: 0 bytes are 0 tokens"),
    "one": (("--text", "a={folder}/one"), "one has nothing to score: 1 bytes are 1 tokens"),
    "no UTF-8": (("--text", "a={folder}/bad"), "bad: byte 0xff at byte offset 2 is not UTF-8"),
    "split": (("--text", "a=x", "--split", "val"), "--split has no meaning with --text"),
    "page": (("--calibration", "--tokens", "x"), "--tokens has no meaning with --calibration"),
}


@pytest.mark.parametrize("mistake", REFUSED)
def test_refused_in_one_line(
    mistake: str, command: Command, finished_run: Path, tmp_path: Path
) -> None:
    for name, content in {"good": b"abc", "empty": b"", "one": b"a", "bad": b"ab\xff"}.items():
        (tmp_path / name).write_bytes(content)
    options, message = REFUSED[mistake]
    ended = command("evaluate", finished_run, *(each.format(folder=tmp_path) for each in options))
    assert (ended.code, ended.out) == (2, "")
    assert message.format(folder=tmp_path) in ended.err
    assert ended.err.count("\n") == 1


def test_lines_of_a_run_on_documents(tmp_path: Path, command: Command) -> None:
    """Each is one, from an empty past, and its marker a token of no bytes."""
    assert small_runs.train(tmp_path / "a", "model=bigram", *LINES, "train.steps=1") == 0
    run, out = tmp_path / "a" / "run", tmp_path / "out.tsv"
    split = evaluated(command, run, "--split", "test", "--tokens", out)
    tokens = lines_of(out)
    ends = [at for at, line in enumerate(tokens) if line["bytes"] == "0"]
    documents = [
        b"".join(bytes_of(line["token"]) for line in tokens[first + 1 : last])
        for first, last in itertools.pairwise(ends)
    ]
    assert len(documents) == split["documents"]
    (tmp_path / "lines").write_bytes(b"\n".join([*documents[:2], "Ω\nein ΩΩ".encode(), b""]))
    (tmp_path / "test").write_bytes(b"\n".join(documents))
    pairs = [f"{name}={tmp_path / name}" for name in ("test", "lines")]
    own, lines = evaluated(command, run, "--text", *pairs, "--tokens", out)["texts"]
    shared = {*own} & {*split} - {"run"}
    assert {name: own[name] for name in shared} == {name: split[name] for name in shared}
    assert (lines["documents"], lines["unknown"]) == (4, 3)
    last = [line["token"] for line in lines_of(out) if line["text"] == "lines"][-9:]
    assert last == ["'Ω'", "''", "'e'", "'i'", "'n'", "' '", "'Ω'", "'Ω'", "''"]


# In training


def test_other_texts_are_scored_at_each_evaluation(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And nothing else changes; at the end by the best weights, as harness.evaluate does."""
    (tmp_path / "tale").write_text("Ten green bottles, hanging on the ground.\n" * 9)
    (tmp_path / "test").write_bytes(TEST)
    also = f"eval.also={{tale: '{tmp_path / 'tale'}', own: '{tmp_path / 'test'}'}}"
    assert small_runs.train(tmp_path / "with", "model=bigram", also) == 0
    assert "tale" in capsys.readouterr().err
    assert small_runs.train(tmp_path / "without", "model=bigram") == 0
    found, plain = small_runs.rows(tmp_path / "with"), small_runs.trace(tmp_path / "without")
    for row, other in zip(found, plain, strict=True):
        own = {name for name in row if name.startswith("also/")}
        names = ("bits_per_byte", "nats_per_token", "perplexity")
        wanted = {f"also/{text}/{name}" for text in ("tale", "own") for name in names}
        assert own == (wanted if "val/bits_per_byte" in row else set())
        assert {name: row[name] for name in row if name not in own | {"seconds"}} == other
    summary = small_runs.summary(tmp_path / "with")
    digest = hashlib.sha256(TEST).hexdigest()
    assert summary["also"]["own"] == summary["test"] | {"sha256": digest}
    assert summary["best"]["step"] == found[-1]["step"]
    last = found[-1]["also/tale/bits_per_byte"]
    assert summary["also"]["tale"]["bits_per_byte"] == last
    assert "also" not in small_runs.summary(tmp_path / "without")


def test_other_texts_of_a_resumed_run_are_the_users(tmp_path: Path, command: Command) -> None:
    """A folder names no file to read; what it named is said."""
    (tmp_path / "tale").write_text("Ten green bottles, hanging on the ground.\n" * 9)
    also = f"eval.also={{tale: '{tmp_path / 'tale'}'}}"
    assert small_runs.train(tmp_path / "a", "model=bigram", "train.steps=3", also) == 0
    run = tmp_path / "a" / "run"
    ended = command("train", f"run_dir={run}", "resume=true", "train.steps=4")
    assert ended.code == 0, ended.err
    assert "eval.also tale: not used, only the run's folder names it" in ended.err
    assert "also" not in small_runs.summary(tmp_path / "a")
    asked = small_runs.settings(tmp_path / "a", "model=bigram", also, "resume=true")
    assert resumed_settings(asked, [also]).eval.also == {"tale": str(tmp_path / "tale")}


def test_other_texts_that_are_not_there_are_refused_before_the_folder(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"^eval\.also\.tale=none\.txt can't be read: No such"):
        small_runs.train(tmp_path / "a", "model=bigram", "eval.also={tale: none.txt}")
    assert not (tmp_path / "a" / "run").exists()
