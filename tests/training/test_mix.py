"""Runs on a mix: each text has a score of its own, and a resumed run sees the same rows."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.cli.hydra_app import compose
from harness.common.errors import UsageError
from harness.config.settings import read_settings
from harness.evaluation.score import score_split
from harness.referee.certify import tokens_cover
from harness.referee.decoder import LocalDecoder
from harness.referee.sequential import rescore_split
from harness.runs.load import load_run
from harness.runs.resume import resumed_settings
from tests import small_runs
from tests.conftest import Ended
from tests.data.mixes import TEXTS, WEIGHTS, cuts_of, files

Command = Callable[..., Ended]


def options(folder: Path) -> list[str]:
    texts = ", ".join(f"{name}: '{path}'" for name, path in files(folder).items())
    weights = ", ".join(f"{name}: {weight}" for name, weight in WEIGHTS.items())
    return [
        "data=mix", f"data.texts={{{texts}}}", f"data.weights={{{weights}}}",
        "data.split=[0.8,0.1,0.1]", "tokenizer=bytes", "train.seq_len=8",
    ]  # fmt: skip


def trained(folder: Path, *overrides: str) -> int:
    chosen = [each for each in small_runs.SMALL if not each.startswith("data")]
    own = [f"cache={folder.parent / 'cache'}", f"run_dir={folder / 'run'}"]
    given = [*chosen, *options(folder.parent), *own, *overrides]
    return small_runs.run(read_settings(compose(given, known=small_runs.FILES)))


GPT = ("model=gpt", "model.n_layer=1", "model.n_head=2", "model.n_embd=8", "model.block_size=8")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mix") / "a"
    assert trained(folder, *GPT) == 0
    return folder


def evaluated(command: Command, run: Path, *given: object) -> dict[str, Any]:
    ended = command("evaluate", run, "--json", *given)
    assert ended.code == 0, ended.err
    return json.loads(ended.out)


def test_each_text_has_the_score_that_it_has_alone(
    finished: Path, command: Command, tmp_path: Path
) -> None:
    """To the bit; and the score of the mix is that of all their bytes."""
    found = small_runs.summary(finished)
    tests = {name: cuts_of(content)[2] for name, content in TEXTS.items()}
    for name, content in tests.items():
        (tmp_path / name).write_bytes(content)
    pairs = [f"{name}={tmp_path / name}" for name in tests]
    alone = evaluated(command, finished / "run", "--text", *pairs)["texts"]
    own = found["test"]["texts"]
    for each in alone:
        assert own[each["text"]] == {name: each[name] for name in own[each["text"]]}
        assert each["sha256"] == found["corpus"]["mixed"][each["text"]]["test"]
    nats = sum(each["nats_per_token"] * each["tokens"] for each in alone)
    size = sum(each["bytes"] for each in alone)
    assert size == found["test"]["bytes"] == sum(map(len, tests.values())) - 3
    assert found["test"]["bits_per_byte"] == pytest.approx(nats / math.log(2) / size, rel=1e-12)
    row = small_runs.rows(finished)[-1]
    for name, score in found["val"]["texts"].items():
        assert row[f"val/{name}/bits_per_byte"] == score["bits_per_byte"]
    assert found["data"] == "low+high+few"
    assert {name: each["weight"] for name, each in found["corpus"]["mixed"].items()} == WEIGHTS
    split = evaluated(command, finished / "run", "--split", "test", "--tokens", tmp_path / "out")
    assert {name: split[name] for name in found["test"]} == found["test"]
    lines = [line.split("\t") for line in (tmp_path / "out").read_text().splitlines()[1:]]
    unscored = [int(line[1]) for line in lines if line[5] == ""]
    sizes = [len(content) for content in tests.values()]
    assert unscored == [0, sizes[0], sizes[0] + sizes[1]]
    assert command("evaluate", finished / "run", "--split", "test").out.count("bits_per_byte") == 1


def test_it_is_certified_text_by_text(finished: Path, command: Command) -> None:
    assert small_runs.summary(finished)["certificate"] == "passed, sampled"
    run = load_run(finished / "run", "best", "cpu", [])
    dataset = run.dataset()
    assert dataset.test is not None
    score = score_split(run.model, dataset.test, run.tokenizer, run.compute)
    decoder = LocalDecoder(run.model, run.compute)
    again = rescore_split(decoder, dataset.test, score.stride, True, 0, lambda: True)
    np.testing.assert_allclose(again.nats, score.token_nats, atol=1e-5)
    sizes = [len(text.ids) for text in dataset.test.texts.values()]
    assert np.flatnonzero(score.token_nats == 0).tolist() == (np.cumsum(sizes)[:-1] - 1).tolist()
    assert tokens_cover(dataset, dataset.test, run.tokenizer).result == "passed"
    low, high, few = dataset.test.texts.values()
    moved = replace(low, ids=dataset.test.ids[: len(low.ids) + 1])
    split = replace(dataset.test, texts={"low": moved, "high": high, "few": few})
    check = tokens_cover(replace(dataset, test=split), split, run.tokenizer)
    assert check.words == "its tokens are not cut where the texts of the mix end"
    ended = command("evaluate", finished / "run", "--calibration")
    assert (ended.code, ended.out) == (2, "")
    assert ended.err == (
        "error: --calibration is for one long text, and this run's data are a mix\n"
    )


@pytest.mark.long
def test_it_can_be_verified(finished: Path, command: Command) -> None:
    ended = command("verify", finished / "run", "--complete")
    assert ended.code == 0, ended.out + ended.err
    assert "passed, every token scored again" in ended.out


def test_a_stopped_run_goes_on_bit_for_bit(
    finished: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = tmp_path / "b"
    draw = small_runs.loop.draw_batch

    def drawing(ids: np.ndarray, seed: int, step: int, *rest: Any) -> Any:
        if step == 5:
            raise KeyboardInterrupt
        return draw(ids, seed, step, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(small_runs.loop, "draw_batch", drawing)
        assert trained(folder, *GPT) == 130
    assert trained(folder, *GPT, "resume=true") == 0
    assert small_runs.trace(folder) == small_runs.trace(finished)
    own, whole = small_runs.summary(folder), small_runs.summary(finished)
    assert (own["val"], own["test"]) == (whole["val"], whole["test"])
    typed = [f"run_dir={folder / 'run'}", "data.weights={low: 0.2, high: 0.6, few: 0.2}"]
    given = [*options(tmp_path), *typed, "resume=true"]
    asked = read_settings(compose(given, known=small_runs.FILES))
    with pytest.raises(
        UsageError, match=r"settings: data.weights.few: 0.25 → 0.2; data.weights.low"
    ):
        resumed_settings(asked, typed)
