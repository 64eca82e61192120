"""Sampling from a run: what comes out, how it comes, and what is refused."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from harness.config.saved import load_settings
from harness.runs.load import load_run
from harness.sampling.transcript import Transcript
from tests.conftest import Ended
from tests.small_runs import TEXT, TRAIN_SHARE
from tests.waiting import GUARD

Command = Callable[..., Ended]


def sampled(command: Command, run: Path, *options: object) -> str:
    ended = command("sample", run, *options)
    assert (ended.code, ended.err) == (0, "")
    return ended.out


def test_the_same_seed_gives_the_same_text(command: Command, finished_run: Path) -> None:
    first, second = (sampled(command, finished_run, "--seed", 3) for _ in range(2))
    assert first == second
    assert first != sampled(command, finished_run, "--seed", 4)
    assert sampled(command, finished_run) == sampled(command, finished_run, "--seed", 0)


def test_the_text_goes_on_from_the_prompt(command: Command, finished_run: Path) -> None:
    """By as many characters as asked for, past the window of 16."""
    text = sampled(command, finished_run, "--prompt", "10 green ", "--tokens", 100)
    assert text.startswith("10 green ")
    assert len(text) == len("10 green ") + 100 + len("\n")


def test_temperature_0_is_the_likeliest_of_a_full_forward_pass(
    command: Command, finished_run: Path
) -> None:
    run = load_run(finished_run, "best", "cpu", [])
    prompt = "10 gr"
    ids = torch.from_numpy(run.tokenizer.encode(prompt).astype("int64"))[None]
    with torch.inference_mode():
        while ids.shape[1] < 16:
            ids = torch.cat([ids, run.model(ids)[:, -1:].argmax(-1)], dim=1)
    expected = run.tokenizer.decode(ids[0].tolist())
    options = ("--prompt", prompt, "--tokens", 16 - len(prompt))
    greedy = sampled(command, finished_run, *options, "--temperature", 0)
    assert greedy == expected + "\n"
    assert sampled(command, finished_run, *options, "--temperature", 0, "--seed", 9) == greedy
    assert sampled(command, finished_run, *options, "--top-k", 1) == greedy
    assert sampled(command, finished_run, *options, "--beams", 1) == greedy


def test_top_k_beyond_the_vocabulary_is_all_of_it(command: Command, finished_run: Path) -> None:
    assert sampled(command, finished_run, "--top-k", 10**6) == sampled(command, finished_run)


def test_as_many_texts_as_asked_for(command: Command, finished_run: Path) -> None:
    options = ("--prompt", "1", "--tokens", 30)
    texts = sampled(command, finished_run, *options, "--num-samples", 3).split(f"\n{'-' * 40}\n")
    assert len(set(texts)) == 3
    beams = sampled(command, finished_run, *options, "--beams", 4, "--num-samples", 2)
    assert beams.count("-" * 40) == 1


def test_a_prompt_longer_than_the_window_is_cropped_visibly(
    command: Command, finished_run: Path
) -> None:
    prompt = "10 green bottles, hanging on the wall"
    options = ("--tokens", 5, "--temperature", 0)
    ended = command("sample", finished_run, "--prompt", prompt, *options)
    assert ended.err == f"note: the prompt has {len(prompt)} tokens; the model sees its last 16\n"
    cropped = sampled(command, finished_run, "--prompt", prompt[-16:], *options)
    assert ended.out == prompt[:-16] + cropped


def test_bytes_that_are_no_utf_8_are_shown_as_such(command: Command, finished_bigram: Path) -> None:
    """A hardly trained model over bytes says mostly nonsense."""
    assert "\N{REPLACEMENT CHARACTER}" in sampled(command, finished_bigram, "--prompt", "é")


def test_sampling_does_not_need_the_corpus(
    command: Command, train_run: Callable[..., Path], small_text: Path
) -> None:
    run = train_run("model=bigram", "train.steps=1", f"data.path={small_text}")
    small_text.unlink()
    assert load_settings(run / "config.yaml").data["path"] == str(small_text)
    assert len(sampled(command, run, "--tokens", 9, "--prompt", "a")) == 11


# What is asked for


def refused(ended: Ended, *words: str) -> None:
    assert (ended.code, ended.out) == (2, "")
    assert len(ended.err.splitlines()) == 1
    for word in words:
        assert word in ended.err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--temperature", "-1"], ["--temperature=-1 must be 0 (greedy) or above"]),
        (["--top-k", "0"], ["--top-k=0 must be at least 1"]),
        (["--top-p", "2"], ["--top-p=2 must be above 0 and at most 1"]),
        (["--min-p", "2"], ["--min-p=2 must lie between 0 and 1"]),
        (["--repetition-penalty", "0"], ["--repetition-penalty=0 must lie between 1e-09 and"]),
        (["--repetition-penalty", "1e-320"], ["--repetition-penalty=9.99989e-321 must lie"]),
        (["--repetition-penalty", "1e300"], ["--repetition-penalty=1e+300 must lie"]),
        (["--tokens", "0"], ["--tokens 0 must be at least 1"]),
        (["--prompt", ""], ["--prompt '' has no tokens"]),
        (["--prompt", "\N{SNOWMAN}"], ["--prompt: character '\N{SNOWMAN}' at offset 0"]),
        (["--prompt", "a", "--prompt-file", "b"], ["--prompt-file: not allowed with", "--prompt"]),
        (["--prompt-file", "nowhere.txt"], ["--prompt-file nowhere.txt can't be read: No such"]),
        (["--prompt-file", "."], ["--prompt-file . can't be read: Is a directory"]),
        (["--stop", ""], ["--stop '' is empty"]),
        (["--beams", "2", "--num-samples", "3"], ["--num-samples 3 exceeds --beams 2"]),
        (["--beams", "2", "--min-p", "0.1"], ["--min-p has no meaning with --beams"]),
        (["--beams", "2", "--temperature", "0"], ["--temperature has no meaning with --beams"]),
        (["--length-penalty", "1"], ["--length-penalty has no meaning without --beams"]),
        (["--beams", "2", "--length-penalty", "1"], ["--length-penalty", "without --stop"]),
        (
            ["--beams", "2", "--stop", "a", "--length-penalty", "-1"],
            ["--length-penalty -1 must lie between 0 and 30"],
        ),
        (
            ["--beams", "2", "--stop", "a", "--length-penalty", "1e300"],
            ["--length-penalty 1e+300 must lie between 0 and 30"],
        ),
        (["--min-q", "0.1"], ["no option --min-q", "Did you mean --min-p?"]),
    ],
)
def test_what_can_not_be_is_refused(
    options: list[str], words: list[str], command: Command, finished_run: Path
) -> None:
    refused(command("sample", finished_run, *options), *words)


def test_every_way_to_choose_can_be_asked_for(command: Command, finished_run: Path) -> None:
    """Each changes the text, and what says nothing changes nothing."""
    plain = sampled(command, finished_run)
    changes = [
        ("--temperature", 0.5),
        ("--top-k", 2),
        ("--top-p", 0.3),
        ("--min-p", 0.5),
        ("--repetition-penalty", 3),
    ]
    texts = [sampled(command, finished_run, *change) for change in changes]
    assert len({plain, *texts}) == 1 + len(changes)
    nothing = [("--temperature", 1), ("--top-p", 1), ("--min-p", 0), ("--repetition-penalty", 1)]
    for change in nothing:
        assert sampled(command, finished_run, *change) == plain


@pytest.mark.parametrize(
    "extreme",
    [
        *(("--temperature", "1e-320"), ("--temperature", "1e308"), ("--top-p", "1e-320")),
        *(("--min-p", "1e-320"), ("--repetition-penalty", "1e-9"), ("--repetition-penalty", "1e9")),
        ("--beams", "2", "--stop", "~", "--length-penalty", "30"),
    ],
)
def test_the_most_extreme_numbers_give_a_text(
    extreme: tuple[str, ...], command: Command, finished_run: Path
) -> None:
    assert len(sampled(command, finished_run, "--tokens", 9, *extreme)) == len("\n") + 9 + len("\n")


def test_a_prompt_from_a_file(command: Command, finished_run: Path, tmp_path: Path) -> None:
    """To the last line break."""
    file = tmp_path / "prompt.txt"
    file.write_text("1 green\n2 …\n")
    text = sampled(command, finished_run, "--prompt-file", file)
    assert text.startswith("1 green\n2 …\n")
    assert text == sampled(command, finished_run, "--prompt", file.read_text())
    file.write_text("10 \N{SNOWMAN}")
    refused(
        command("sample", finished_run, "--prompt-file", file), "--prompt-file: character", "3 is"
    )
    file.write_bytes(b"10 \xff")
    refused(command("sample", finished_run, "--prompt-file", file), "byte 0xff at byte offset 3")


def test_a_prompt_from_a_file_keeps_its_line_breaks(
    command: Command, finished_bigram: Path, tmp_path: Path
) -> None:
    """CRLF and CR alone, from a file and from a pipe, are what the model is given and what is
    printed."""
    content = b"First line\r\nSecond line\r\n\rx"
    file = tmp_path / "prompt.txt"
    file.write_bytes(content)
    read, write = os.pipe()
    os.write(write, content)
    os.close(write)
    for source in (file, f"/dev/fd/{read}"):
        text = sampled(command, finished_bigram, "--prompt-file", source, "--tokens", 1)
        assert text.encode().startswith(content)
        assert len(text) >= len(content) + 1


def test_a_text_stops_where_it_is_told_to(command: Command, finished_run: Path) -> None:
    """And is the same up to there, drawn alone or beside others."""
    options = ("--prompt", "10 green", "--seed", 2)
    whole = sampled(command, finished_run, *options)
    stop = whole[40:42]
    assert stop not in whole[8:40]
    assert sampled(command, finished_run, *options, "--stop", stop) == whole[:42] + "\n"
    three = sampled(command, finished_run, *options, "--num-samples", 3)
    stopped = sampled(command, finished_run, *options, "--num-samples", 3, "--stop", " ")
    between = f"\n{'-' * 40}\n"
    for long, short in zip(three.split(between), stopped.split(between), strict=True):
        assert long.startswith(short.rstrip("\n"))
        assert short.rstrip("\n")[8:].index(" ") == len(short.rstrip("\n")) - 9


def test_beams_of_different_lengths(command: Command, finished_run: Path) -> None:
    """The longer they may be worth, the longer the best one is."""
    options = ("--prompt", "10 green", "--beams", 4, "--num-samples", 4, "--tokens", 40)
    lengths = []
    for alpha in (0, 1, 30):
        out = sampled(command, finished_run, *options, "--stop", " ", "--length-penalty", alpha)
        texts = out.removesuffix("\n").split(f"\n{'-' * 40}\n")
        assert len(set(texts)) == 4
        assert all(" " not in text[8:-1] for text in texts)
        lengths.append(len(texts[0]))
    assert lengths == sorted(lengths)
    assert lengths[0] < lengths[-1]


# Ids that train never shows


def bytes_in(out: str) -> set[int]:
    """Of all texts, but for what is no UTF-8, as the bytes of … are in any other order."""
    return {*out.replace("-" * 40, "").replace("\N{REPLACEMENT CHARACTER}", "").encode()}


def test_what_train_never_shows_can_be_left_out(command: Command, finished_bigram: Path) -> None:
    """An almost untrained model over bytes says any byte, unless it is told not to."""
    options = ("--prompt", "1", "--tokens", 600)
    run = load_run(finished_bigram, "best", "cpu", [])
    counts = run.folder.read_counts(256)
    assert counts is not None
    train = TEXT.encode()[: int(TRAIN_SHARE * len(TEXT.encode()))]
    assert abs(counts - np.bincount(list(train), minlength=256)).sum() <= 3  # a character's bytes
    seen = {id_ for id_ in range(256) if counts[id_]}
    assert len(seen) < 50
    for how in ((), ("--temperature", 0, "--repetition-penalty", 50), ("--num-samples", 2)):
        masked = sampled(command, finished_bigram, *options, *how, "--mask-unused")
        assert bytes_in(masked) <= seen | {10}
        plain = sampled(command, finished_bigram, *options, *how)
        assert not bytes_in(plain) <= seen | {10}
    beams = sampled(command, finished_bigram, "--prompt", "1", "--beams", 9, "--mask-unused")
    assert bytes_in(beams) <= seen | {10}


@pytest.mark.long
def test_berts_own_ids_are_never_said(
    command: Command,
    train_run: Callable[..., Path],
    assets: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """30,522 of them, of which a small text has few; an untrained model would say any."""
    run = train_run(
        "model=mlp", "model.n_embd=4", "model.n_hidden=4", "tokenizer=bert", "train.steps=1",
        f"assets=[{assets}]",
    )  # fmt: skip
    loaded = load_run(run, "best", "cpu", [])
    assert loaded.tokenizer.vocab_size == 30522
    counts = loaded.folder.read_counts(30522)
    assert counts is not None
    assert counts[:999].sum() == 0  # [PAD], [unused0], [CLS], [MASK], …
    seen = set(np.flatnonzero(counts).tolist())
    assert 100 < len(seen) < 400
    said = list[int]()
    take = Transcript.add

    def listen(transcript: Transcript, ids: list[int]) -> str:
        said.extend(ids)
        return take(transcript, ids)

    monkeypatch.setattr(Transcript, "add", listen)
    for how in ((), ("--temperature", 0, "--repetition-penalty", 9), ("--beams", 2)):
        for masked in (True, False):
            said.clear()
            ended = command("sample", run, "--tokens", 50, *how, *["--mask-unused"] * masked)
            assert ended.code == 0
            assert "note: no prompt, and to this tokenizer a line break is nothing" in ended.err
            assert len(said) > 50
            assert (set(said) <= seen) == masked


def test_a_run_without_counts(command: Command, finished_bigram: Path, tmp_path: Path) -> None:
    copied = Path(shutil.copytree(finished_bigram, tmp_path / "copied"))
    counts = copied / "train_counts.npy"
    counts.unlink()
    assert command("sample", copied, "--tokens", 1).code == 0
    refused(command("sample", copied, "--mask-unused"), "--mask-unused needs", "older versions")
    np.save(counts, np.ones(255, dtype=np.int64))
    refused(command("sample", copied), "does not hold a count for each of 256 ids")
    touches = type("Touches", (), {"__reduce__": lambda _: (os.mkdir, (str(tmp_path / "ran"),))})
    np.save(counts, np.array([touches()] * 256), allow_pickle=True)
    refused(command("sample", copied), "does not hold a count for each of 256 ids")
    assert not (tmp_path / "ran").exists()


# As it goes


@pytest.mark.long
def test_one_text_comes_as_it_is_made(finished_run: Path) -> None:
    """And a reader that leaves ends it, without a word."""
    made = subprocess.Popen(
        [sys.executable, "-m", "harness.sample", str(finished_run), "--tokens", "1000000"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=os.environ,
    )  # fmt: skip
    assert made.stdout is not None
    assert made.stderr is not None
    try:
        assert len(made.stdout.read(30)) == 30
        assert made.poll() is None  # a million take minutes
        made.stdout.close()
        assert made.wait(timeout=GUARD) == 0
        assert made.stderr.read() == b""
    finally:
        made.kill()
        made.stderr.close()
