"""Training on documents: each from an empty past, padding nowhere, and what is recorded of it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from harness.common.interrupt import TERMINATED
from harness.compute.device import Compute
from harness.config.settings import Settings
from harness.data.batches import IGNORED, draw_batch
from harness.report.records.runs import find_runs
from harness.report.statistics.ranking import compare_runs
from harness.report.text.pairs import sentence
from harness.runs import blocks, certificate, samples
from harness.runs.load import load_run
from harness.training.run import load_dataset
from harness.training.trainer import Trainer
from tests.conftest import Ended
from tests.small_runs import cut_off, rows, settings, summary, trace, train
from tests.training.documents import GPT_OF_DOCUMENTS, LINES
from zoo.ngram import NGram


class OfOneText(NGram):
    """Counts one long text alone."""

    def fit(self, ids_N: torch.Tensor) -> None:  # type: ignore[override]
        super().fit(ids_N)


CPU = Compute(torch.device("cpu"), "fp32")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GPT, in the folder 0; for reading only."""
    folder = tmp_path_factory.mktemp("documents")
    chosen = (*GPT_OF_DOCUMENTS, "train.steps=24", "eval.every=12", "optimizer.lr=1e-2")
    assert train(folder / "0", *chosen, "eval.sample_tokens=100") == 0
    return folder


def test_a_run_on_documents_counts_no_padding(trained: Path) -> None:
    chosen = settings(trained / "0", *GPT_OF_DOCUMENTS)
    dataset = load_dataset(chosen)
    tokens = text_bytes = 0
    for row in rows(trained / "0"):
        assert (row["tokens"], row["bytes"]) == (tokens, text_bytes)
        batch = draw_batch(dataset.train.ids, 0, row["step"], 2, 32, dataset.row_documents)
        targets = batch[1][batch[1] != IGNORED].numpy()
        tokens += len(targets)
        text_bytes += int(dataset.tokenizer.token_bytes[targets].sum())
    found = summary(trained / "0")
    assert dataset.test is not None
    assert found["test"]["bytes"] == dataset.test.bytes
    assert found["test"]["tokens"] == len(dataset.test.ids) - 1
    assert found["test"]["documents"] == len(dataset.test.documents or ())
    assert found["vocab_size"] == dataset.tokenizer.vocab_size
    nats = found["test"]["nats_per_token"] * found["test"]["tokens"]
    assert found["test"]["bits_per_byte"] == pytest.approx(
        nats / math.log(2) / found["test"]["bytes"]
    )


def gradients(chosen: Settings, batch: tuple[torch.Tensor, torch.Tensor]) -> tuple[float, dict]:
    """The loss of a batch, and the weights after a step on it without momentum."""
    trainer = Trainer(chosen, 99, CPU)
    row = {"step": 0}
    trainer.step(batch, 1.0, row)
    return row["train/loss"], {k: v.clone() for k, v in trainer.model.state_dict().items()}


@pytest.mark.parametrize("model", ["gpt", "lstm", "megabyte", "wavenet", "mamba2"])
def test_padding_changes_no_loss_and_no_update(tmp_path: Path, model: str) -> None:
    """Whatever lies behind a document's end; and the loss is the mean over the targets."""
    chosen = settings(tmp_path / "run", *LINES, f"model={model}", "optimizer=sgd", "train.clip=1e9")
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randint(98, (2, 16), generator=generator)
    targets = torch.randint(98, (2, 16), generator=generator)
    targets[0, 5:] = IGNORED
    one = gradients(chosen, (inputs, targets))
    inputs = inputs.clone()
    inputs[0, 5:] = torch.randint(98, (11,), generator=generator)
    other = gradients(chosen, (inputs, targets))
    assert one[0] == other[0]
    for name, weight in one[1].items():
        torch.testing.assert_close(weight, other[1][name], rtol=0, atol=1e-6)


def test_a_run_on_documents_resumes_exactly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(tmp_path / "whole", *GPT_OF_DOCUMENTS)
    assert cut_off(tmp_path / "cut", 5, monkeypatch, *GPT_OF_DOCUMENTS) == TERMINATED
    assert train(tmp_path / "cut", *GPT_OF_DOCUMENTS, "resume=true") == 0
    assert trace(tmp_path / "cut") == trace(tmp_path / "whole")
    for key in ("val", "test", "best", "corpus"):
        assert summary(tmp_path / "cut")[key] == summary(tmp_path / "whole")[key]


def test_another_order_of_documents_is_another_corpus(trained: Path, command: Callable) -> None:
    run = trained / "0" / "run"
    ended = command("train", f"run_dir={run}", "resume=true", "data.shuffle=1", "train.steps=30")
    assert ended.code == 2
    assert "data.shuffle: 0 → 1" in ended.err


def test_the_certificate_is_of_the_documents(trained: Path) -> None:
    found = certificate.read(trained / "0" / "run")
    assert found is not None
    assert found.failed == []
    assert found.score is not None
    assert found.score.tokens > 50
    assert abs(found.score.difference) <= found.score.bound


@pytest.mark.long
def test_all_is_certified_by_a_process_that_never_held_the_text(
    trained: Path, command: Callable[..., Ended]
) -> None:
    ended = command("verify", trained / "0" / "run", "--complete")
    assert ended.code == 0
    assert "passed, every token scored again" in ended.out


def test_runs_are_tested_in_pairs_by_whole_documents(trained: Path, tmp_path: Path) -> None:
    chosen = (*LINES, "model=bigram", "train.seq_len=32", "eval.sample_tokens=0", "seed=5")
    assert train(trained / "other", *chosen) == 0
    own = blocks.read(trained / "0" / "run")
    assert own is not None
    assert own.documents is not None
    dataset = load_run(trained / "0" / "run", "best", "cpu", []).dataset()
    assert dataset.test is not None
    sizes = [len(text.encode()) for text in dataset.text.strings(*dataset.parts[2][:2])]
    assert list(own.documents) == sizes
    test = summary(trained / "0")["test"]
    assert sum(own.nats) / math.log(2) / sum(sizes) == pytest.approx(test["bits_per_byte"])
    # As few documents as the shares of this corpus leave are too few.
    (pair,) = compare_runs(find_runs([trained]), "test").pairs
    assert sentence(pair) == (
        f"{pair.better.label} and {pair.worse.label} were not tested in pairs: "
        f"{len(sizes)} test documents are too few: 32 are the least to test."
    )


def test_samples_are_documents(trained: Path, command: Callable[..., Ended]) -> None:
    run = trained / "0" / "run"
    last = samples.read(run / samples.FILE)[-1].text.split("\n")
    assert 1 <= len(last) <= 100
    one = command("sample", run, "--tokens", "400", "--seed", "1")
    assert one.code == 0
    assert 1 <= len(one.out.strip()) < 400  # the marker came before the limit
    begun = command("sample", run, "--prompt", "12 green", "--tokens", "3")
    assert begun.out.startswith("12 green")
    several = command("sample", run, "--num-samples", "2", "--tokens", "9", "--beams", "2")
    assert several.code == 0


def test_evaluate_shows_the_loss_by_position(trained: Path, command: Callable[..., Ended]) -> None:
    found = json.loads(command("evaluate", trained / "0" / "run", "--split", "val", "--json").out)
    assert {*found["nats_by_position"]} >= {"0", "1", "2-3", "4-7"}
    assert found["nats_per_token"] == summary(trained / "0")["val"]["nats_per_token"]
    last = found["documents"] * (found["nats_per_token"] * found["tokens"] / found["documents"])
    text = found["text_nats_per_token"] * (found["tokens"] - found["documents"])
    assert 0 < last - text < last  # the markers cost something, too


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (("model=gpt", "train.positions=last"), "would be padding of short ones"),
        (("model=ngram", f"model._target_={__name__}.OfOneText", "trust=[tests]"), "counts across"),
    ],
)
def test_what_is_not_possible_with_documents_is_refused(
    tmp_path: Path, command: Callable[..., Ended], overrides: tuple[str, ...], words: str
) -> None:
    (tmp_path / "lines").write_text("a\nb\n" * 20)
    ended = command("train", "data=lines", f"data.path={tmp_path / 'lines'}", *overrides)
    assert ended.code == 2
    (line,) = ended.err.strip().splitlines()
    assert words in line


def test_what_is_for_one_text_is_refused(trained: Path, command: Callable[..., Ended]) -> None:
    run = trained / "0" / "run"
    ended = command("evaluate", run, "--split", "test", "--calibration")
    assert (ended.code, "--calibration is for one long text" in ended.err) == (2, True)
    ended = command("compress", run, trained / "corpus.txt", "--out", trained / "packed")
    assert (ended.code, "a file is compressed as one text" in ended.err) == (2, True)


def test_n_grams_of_documents_are_the_floor(tmp_path: Path) -> None:
    scores = {}
    for rows_seen in ("alone", "across"):
        chosen = (*LINES, f"+data.rows={rows_seen}", "model=ngram", "model.order=4")
        assert train(tmp_path / rows_seen, *chosen) == 0
        found = summary(tmp_path / rows_seen)
        assert found["causal"] is True
        assert found["corpus"]["rows"] == rows_seen
        scores[rows_seen] = found["test"]["bits_per_byte"]
    assert scores["alone"] < scores["across"]  # what lies before a document says nothing of it
