"""The tools that read a finished run give its numbers again, and say when they can't."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from harness.evaluation import evaluate_run
from harness.evaluation import score as metrics
from tests.conftest import Ended
from tests.small_runs import TEXT, TRAIN_SHARE

Command = Callable[..., Ended]
SCORE = ("nats_per_token", "bits_per_byte", "perplexity", "tokens", "bytes", "stride", "unknown")


@pytest.fixture
def copied(finished_run: Path, tmp_path: Path) -> Path:
    """The finished run, to be tampered with."""
    return Path(shutil.copytree(finished_run, tmp_path / "copied"))


def evaluated(command: Command, run: Path, *options: object) -> dict[str, Any]:
    ended = command("evaluate", run, "--json", *options)
    assert (ended.code, ended.err) == (0, "")

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(ended.out, parse_constant=refuse)


def summary(run: Path) -> dict[str, Any]:
    return json.loads((run / "summary.json").read_text())


# harness.evaluate


@pytest.mark.parametrize("split", ["val", "test"])
@pytest.mark.parametrize("which", ["finished_run", "finished_bigram"])
def test_gives_the_scores_of_the_summary_again(
    which: str, split: str, command: Command, request: pytest.FixtureRequest
) -> None:
    run = request.getfixturevalue(which)
    found = evaluated(command, run, "--split", split)
    assert {name: found[name] for name in SCORE} == summary(run)[split]
    assert found["split"] == split
    assert found["run"] == str(run)
    assert found["step"] == summary(run)["best"]["step"]
    assert found["precision"] == "fp32"


@pytest.mark.parametrize("which", ["finished_run", "finished_bigram"])
def test_any_batch_size_gives_the_same_number(
    which: str, command: Command, request: pytest.FixtureRequest
) -> None:
    run = request.getfixturevalue(which)
    expected = evaluated(command, run)
    for batch_size in (1, 7, 1000):
        found = evaluated(command, run, "--batch-size", batch_size)
        assert found.pop("nats_per_token") == pytest.approx(expected["nats_per_token"], rel=1e-7)
        assert found["tokens"] == expected["tokens"]


def test_as_many_windows_at_a_time_as_the_run_had(
    command: Command, train_run: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a GPU sums are rounded otherwise in batches of another size."""
    run, seen = train_run("model=gpt", "train.steps=1", "eval.batch_size=7"), []
    score = metrics.score_split

    def scoring(*arguments: Any, **options: Any) -> metrics.Score:
        seen.append(options["batch_size"])
        return score(*arguments, **options)

    monkeypatch.setattr(evaluate_run, "score_split", scoring)
    evaluated(command, run)
    evaluated(command, run, "--batch-size", 5)
    assert seen == [7, 5]


def test_evaluating_leaves_the_run_as_it_was(command: Command, finished_run: Path) -> None:
    def contents() -> dict[Path, tuple[int, bytes]]:
        files = [path for path in finished_run.rglob("*") if path.is_file()]
        return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in files}

    before = contents()
    assert evaluated(command, finished_run) == evaluated(command, finished_run)
    assert contents() == before


def test_the_stride_is_recorded_and_matters(
    command: Command, finished_run: Path, finished_bigram: Path
) -> None:
    found = {stride: evaluated(command, finished_run, "--stride", stride) for stride in (1, 8, 16)}
    assert [each["stride"] for each in found.values()] == [1, 8, 16]
    assert len({each["nats_per_token"] for each in found.values()}) == 3
    assert len({each["tokens"] for each in found.values()}) == 1
    assert evaluated(command, finished_run) == found[8]  # half a window
    assert evaluated(command, finished_bigram)["stride"] is None
    ended = command("evaluate", finished_bigram, "--stride", 8)
    assert ended.code == 2
    assert "--stride has no meaning for bigram" in ended.err


def test_the_splits_cover_the_text_once(command: Command, finished_bigram: Path) -> None:
    found = [
        evaluated(command, finished_bigram, "--split", split) for split in ("train", "val", "test")
    ]
    # The first token of each is context. With bytes, tokens and bytes are the same.
    assert sum(each["tokens"] + 1 for each in found) == len(TEXT.encode())
    assert [each["tokens"] for each in found] == [each["bytes"] for each in found]


def test_a_bigrams_score_by_hand(command: Command, finished_bigram: Path) -> None:
    """From its table and the bytes of the file, with nothing of the harness in between."""
    (checkpoint,) = (finished_bigram / "checkpoints").glob("best-*.pt")
    table = torch.load(checkpoint, weights_only=True)["model"]["table.weight"].double()
    content = list(TEXT.encode())
    cut = int((0.5 + TRAIN_SHARE / 2) * len(content))
    assert content[cut] & 0xC0 != 0x80  # the start of a character
    test = torch.tensor(content[cut:])
    nats = -table.log_softmax(-1)[test[:-1], test[1:]].sum().item()
    found = evaluated(command, finished_bigram)
    assert found["tokens"] == len(test) - 1
    assert found["nats_per_token"] == pytest.approx(nats / (len(test) - 1), rel=1e-6)
    assert found["bits_per_byte"] == pytest.approx(nats / 0.6931471805599453 / (len(test) - 1))


def test_the_table_says_what_the_json_says(command: Command, finished_run: Path) -> None:
    ended = command("evaluate", finished_run)
    shown = dict(line.split(maxsplit=1) for line in ended.out.splitlines())
    expected = evaluated(command, finished_run)
    assert shown.keys() == expected.keys()
    # For people: what is significant. JSON keeps every digit.
    assert float(shown["bits_per_byte"]) == pytest.approx(expected["bits_per_byte"], rel=1e-4)
    assert len(shown["bits_per_byte"]) <= 7 < len(str(expected["bits_per_byte"]))


def test_another_checkpoint_another_number(
    command: Command, train_run: Callable[..., Path]
) -> None:
    """A run that got worse: its best weights are not its latest."""
    run = train_run(
        "model=bigram", "train.steps=6", "eval.every=1", "schedule=constant", "optimizer.lr=30"
    )
    best, latest = (evaluated(command, run, "--checkpoint", which) for which in ("best", "latest"))
    assert (best["step"], latest["step"]) == (summary(run)["best"]["step"], 6)
    assert best["step"] < 6
    assert best["nats_per_token"] != latest["nats_per_token"]


def test_a_split_that_is_not_there(command: Command, train_run: Callable[..., Path]) -> None:
    run = train_run("model=bigram", "train.steps=1", "data.split=[0.9,0.1,0]")
    assert summary(run)["test"] is None
    assert evaluated(command, run)["split"] == "val"
    ended = command("evaluate", run, "--split", "test")
    assert (ended.code, ended.err) == (2, "error: data.split=[0.9, 0.1, 0] leaves no test split\n")


# What can't be read


def refused(ended: Ended, *words: str) -> None:
    assert ended.code == 2
    assert len(ended.err.splitlines()) == 1
    for word in words:
        assert word in ended.err


@pytest.mark.parametrize("tool", ["evaluate", "sample"])
def test_a_run_without_a_checkpoint(tool: str, command: Command, copied: Path) -> None:
    shutil.rmtree(copied / "checkpoints")
    refused(command(tool, copied), "has no checkpoint yet")


@pytest.mark.parametrize("tool", ["evaluate", "sample"])
@pytest.mark.parametrize("file", ["characters.txt", "sha256.txt", ""])
def test_a_tokenizer_that_is_not_the_runs(
    tool: str, file: str, command: Command, copied: Path
) -> None:
    path = copied / "tokenizer" / file
    if file == "":
        shutil.rmtree(path)
    elif file == "sha256.txt":
        path.write_text("0" * 64 + "\n")
    else:
        path.write_text(path.read_text().replace("a", "@"))
    refused(command(tool, copied), "tokenizer")


@pytest.mark.parametrize("tool", ["evaluate", "sample"])
def test_another_runs_tokenizer(
    tool: str, command: Command, copied: Path, finished_bigram: Path
) -> None:
    """Whole in itself, with its own digest, but not the one of this checkpoint."""
    from zoo_tokenizers.characters import Characters

    other = Characters()
    other.fit(TEXT.replace("a", "@"))
    shutil.rmtree(copied / "tokenizer")
    other.save(copied / "tokenizer")
    refused(command(tool, copied), "is not the one the checkpoint was trained with")


def test_a_text_that_has_changed(command: Command, copied: Path, tmp_path: Path) -> None:
    saved = yaml.safe_load((copied / "config.yaml").read_text())
    changed = tmp_path / "changed.txt"
    changed.write_text(TEXT + "one more line\n")
    saved["data"]["path"] = str(changed)
    (copied / "config.yaml").write_text(yaml.safe_dump(saved))
    refused(command("evaluate", copied), "the text is not the one this run was trained on")
    changed.unlink()
    refused(command("evaluate", copied), f"data.path={changed} can't be read")
    assert command("sample", copied, "--tokens", 1).code == 0  # which needs no text


def test_settings_that_do_not_fit_the_weights(command: Command, copied: Path) -> None:
    saved = yaml.safe_load((copied / "config.yaml").read_text())
    saved["model"]["n_layer"] = 1
    (copied / "config.yaml").write_text(yaml.safe_dump(saved))
    refused(command("sample", copied), "config.yaml is not what the weights were trained with")


def test_damaged_weights(command: Command, copied: Path) -> None:
    for path in (copied / "checkpoints").glob("*.pt"):
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    ended = command("sample", copied)
    assert ended.code == 1
    assert "every best checkpoint in" in ended.err
    assert "Traceback" not in ended.err
