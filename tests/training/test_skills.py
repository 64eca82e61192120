"""Trainings on tasks: what is scored, resumed, certified, refused, and drawn in the report."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from harness.common.interrupt import TERMINATED
from harness.data.batches import IGNORED
from harness.report.html.document import write_report
from harness.report.records.runs import find_runs
from harness.report.statistics.ranking import compare_runs
from harness.report.statistics.skills import SkillTask, exact_interval, grid
from harness.report.text import skills as words
from harness.runs import certificate
from harness.runs.load import load_run
from harness.training.run import load_dataset
from tests.conftest import Ended
from tests.small_runs import GPT_SMALL, cut_off, rows, settings, summary, trace, train

RECALL = (
    "data._target_=harness.data.skills.recall.Recall",
    *(f"~data.{key}" for key in ("path", "errors", "field", "separator", "order")),
    *("+data.length=16", "+data.longer=[24]", "+data.pairs=2", "+data.keys=4", "+data.values=4"),
    *("+data.fillers=2", "+data.power=0.5", "+data.examples=200", "data.split=[0.5,0.25,0.25]"),
    *("tokenizer=ids", "names.data=recall", "train.seq_len=24"),
)
GPT_OF_RECALL = (*GPT_SMALL, *RECALL)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GPT, in the folder 0; for reading only."""
    folder = tmp_path_factory.mktemp("skills")
    chosen = ("train.steps=40", "train.batch_size=16", "eval.every=20", "optimizer.lr=1e-2")
    assert train(folder / "0", *GPT_OF_RECALL, *chosen) == 0
    return folder


def test_only_answers_have_a_loss(trained: Path) -> None:
    """By the weights, with nothing of the harness but the model and the examples' texts."""
    run = load_run(trained / "0" / "run", "best", "cpu", [])
    dataset = run.dataset()
    assert dataset.test is not None
    found, nats, hits = summary(trained / "0")["test"], [], []
    for text in dataset.text.strings(*dataset.parts[2][:2]):
        example = text.split()
        ids = [run.tokenizer.vocab_size - 1, *run.tokenizer.encode(text).tolist()]
        with torch.no_grad():
            logits = run.model(torch.tensor([ids]))[0].double().log_softmax(-1)
        for at, word in enumerate(example):
            if word[0] == "v" and example[at - 1] in example[: at - 1]:
                nats.append(-float(logits[at, ids[at + 1]]))
                hits.append(int(logits[at].argmax()) == ids[at + 1])
    assert found["tokens"] == len(nats) == 2 * 50
    assert found["nats_per_token"] == pytest.approx(np.mean(nats), rel=1e-5)
    assert found["accuracy"] == pytest.approx(np.mean(hits))
    by_example = np.reshape(hits, (50, 2)).mean(axis=1)
    assert found["accuracy_error"] == pytest.approx(by_example.std(ddof=1) / 50**0.5)
    assert found["bits_per_byte"] is None
    assert summary(trained / "0")["corpus"]["chance"] == 0.25
    assert summary(trained / "0")["also"]["length_24"]["tokens"] == 2 * 50


def test_every_row_is_new_and_answers_alone_are_counted(trained: Path) -> None:
    found = rows(trained / "0")
    assert [row["tokens"] for row in found] == [32 * row["step"] for row in found]
    assert {row["epochs"] for row in found} == {None}
    assert all(("val/accuracy" in row) == (row["step"] % 20 == 0) for row in found)
    assert found[-1]["also/length_24/accuracy"] == pytest.approx(0.25, abs=0.25)
    task = load_dataset(settings(trained / "0", *GPT_OF_RECALL)).task
    assert task is not None
    inputs, targets = (np.concatenate(each) for each in zip(
        *(task.batch(0, step, 16) for step in range(40)), strict=True))  # fmt: skip
    assert len({row.tobytes() for row in inputs}) > 0.99 * len(inputs)  # few words: chance repeats
    assert (targets != IGNORED).sum() == found[-1]["tokens"]


def test_a_training_on_a_task_resumes_exactly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(tmp_path / "whole", *GPT_OF_RECALL)
    assert cut_off(tmp_path / "cut", 5, monkeypatch, *GPT_OF_RECALL) == TERMINATED
    assert train(tmp_path / "cut", *GPT_OF_RECALL, "resume=true") == 0
    assert trace(tmp_path / "cut") == trace(tmp_path / "whole")
    for key in ("val", "test", "best", "corpus", "also"):
        assert summary(tmp_path / "cut")[key] == summary(tmp_path / "whole")[key]


def test_a_score_of_answers_is_certified(trained: Path, command: Callable[..., Ended]) -> None:
    found = certificate.read(trained / "0" / "run")
    assert found is not None
    assert found.failed == []
    assert found.score is not None
    assert abs(found.score.difference) <= found.score.bound
    ended = command("evaluate", trained / "0" / "run", "--json", "--tokens", trained / "tokens.tsv")
    scored = json.loads(ended.out)
    test = summary(trained / "0")["test"]
    assert (scored["accuracy"], scored["nats_per_token"]) == (
        test["accuracy"], test["nats_per_token"],
    )  # fmt: skip
    with (trained / "tokens.tsv").open() as file:
        table = list(csv.DictReader(file, delimiter="\t"))
    nats = [float(row["nats"]) for row in table if row["nats"]]
    assert np.mean(nats) == pytest.approx(test["nats_per_token"])


def test_the_report_draws_the_grid(trained: Path) -> None:
    comparison = compare_runs(find_runs([trained]))
    found = grid(comparison)
    assert found is not None
    here, longer = SkillTask("recall", None, 0.25), SkillTask("recall", "24", 0.25)
    assert list(found.tasks) == [here, longer]
    kept, cells = found.models["gpt"]
    test = summary(trained / "0")["test"]
    assert (cells[here].mean, cells[here].seeds) == (test["accuracy"], 1)
    answers = test["accuracy"] * (1 - test["accuracy"]) / test["accuracy_error"] ** 2
    assert cells[here].interval == exact_interval(test["accuracy"], min(answers, test["tokens"]))
    assert test["documents"] == 50
    assert cells[longer].mean == summary(trained / "0")["also"]["length_24"]["accuracy"]
    # Keys and values of two layers of 16 channels, for a window of 24 tokens.
    assert kept == summary(trained / "0")["cache_bytes"] == 4 * 2 * 2 * 16 * 24
    write_report(comparison, trained / "report.html", [trained])
    page = (trained / "report.html").read_text()
    assert "<h2>Skills</h2>" in page
    assert words.cell(cells[here]) in page
    assert '<th scope="row" class="text">recall at 24</th><td>0.250</td>' in page


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("data=recall", "tokenizer=bytes"), "has ids of its own: choose tokenizer=ids, not bytes"),
        (("tokenizer=ids",), "tokenizer=ids is for data that are ids: choose another one"),
        (("data=recall", "data.length=65"), "examples of 65 tokens: raise train.seq_len=64"),
    ],
)
def test_what_can_not_be_is_refused(
    tmp_path: Path, command: Callable[..., Ended], overrides: tuple[str, ...], message: str
) -> None:
    ended = command("train", *overrides, f"cache={tmp_path}", f"run_dir={tmp_path / 'run'}")
    assert ended.code == 2
    assert message in ended.err
    assert len(ended.err.strip().splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_the_file_of_a_task_chooses_its_tokenizer(
    tmp_path: Path, command: Callable[..., Ended]
) -> None:
    small = ("model=bigram", "train.steps=2", "data.examples=64", "eval.sample_tokens=9")
    ended = command(
        "train", "data=parity", *small, f"cache={tmp_path}", f"run_dir={tmp_path / 'run'}"
    )
    assert ended.code == 0
    assert "accuracy" in ended.out
    ended = command("evaluate", tmp_path / "run", "--data-path", tmp_path / "any")
    assert ended.code == 2
    assert "are generated: they lie in no file" in ended.err
