"""Packed rows: no position sees another document, in any architecture."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from harness.data.batches import draw_batch
from harness.training import packed
from harness.training.packed import features_apart
from harness.training.run import load_dataset
from harness.training.trainer import Trainer
from tests.conftest import Ended
from tests.small_runs import GPT_SMALL, settings, summary, train
from tests.training.documents import LINES
from tests.training.test_documents import CPU
from tests.zoo_models import NAMES, VOCAB, Make, maker
from zoo.language_model import LanguageModel

MARKER = VOCAB - 1
LENGTHS = ([7, 1, 1, 8, 3, 12], [32], [1, 2, 4, 9, 16])  # of each row's documents
Apart = Callable[[LanguageModel, Tensor], Tensor]


def by_documents(model: LanguageModel, ids_BT: Tensor) -> Tensor:
    return features_apart(lambda ids: model(ids, return_features=True), ids_BT, MARKER)


def rows() -> Tensor:
    """Of 32 tokens. The first document of each has begun before the row."""
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(MARKER, (len(LENGTHS), 32), generator=generator)
    for row, lengths in zip(ids, LENGTHS, strict=True):
        row[torch.tensor(lengths).cumsum(0)[:-1]] = MARKER
    return ids


@torch.no_grad()
def law(make: Make, apart: Apart = by_documents) -> None:
    """The features of a packed row are those of each of its documents alone."""
    model, ids = make(), rows()
    found = apart(model, ids)
    for row, lengths in enumerate(LENGTHS):
        parts = ids[row].split(lengths)
        assert all(part[0] == MARKER for part in parts[1:])
        alone = torch.cat([model(part[None], return_features=True)[0] for part in parts])
        torch.testing.assert_close(found[row], alone, rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", NAMES)
def test_no_position_of_a_packed_row_sees_another_document(name: str) -> None:
    law(maker(name))


MUTANTS = {
    "documents see each other": (
        "return torch.cat(found)[torch.cat(at).argsort()].unflatten(0, ids_BT.shape)",
        "return forward(ids_BT)",
    ),
    "a marker belongs to the document before it": (
        "begins_BT = ids_BT == marker",
        "begins_BT = (ids_BT == marker).roll(1, 1)",
    ),
    "a row goes on with the document of the row before": (
        "begins_BT[:, 0] = True",
        "begins_BT[0, 0] = True",
    ),
    "features are put back in the order of the lengths": (".argsort()", ".sort().indices * 0"),
    "positions go on": ("place_N = torch.arange(len(own_N), device=own_N.device) - begins_D[own_N]",
                        "place_N = torch.arange(len(own_N)) % 32"),
}  # fmt: skip


@pytest.mark.parametrize("mutant", MUTANTS)
@pytest.mark.parametrize("name", ["gpt", "lstm", "wavenet", "megabyte", "mamba2"])
def test_the_law_notices(name: str, mutant: str) -> None:
    old, new = MUTANTS[mutant]
    source = inspect.getsource(features_apart)
    assert source.count(old) == 1
    names = dict(vars(packed))
    exec(source.replace(old, new), names)

    def apart(model: LanguageModel, ids: Tensor) -> Tensor:
        return names["features_apart"](lambda x: model(x, return_features=True), ids, MARKER)

    with pytest.raises((AssertionError, RuntimeError, IndexError)):
        law(maker(name), apart)


def test_the_padding_is_less_than_the_tokens() -> None:
    calls: list[int] = []

    def forward(ids: Tensor) -> Tensor:
        calls.append(ids.numel())
        return ids[..., None].double()

    ids = torch.randint(MARKER, (4, 512), generator=torch.Generator().manual_seed(0))
    ids[:3][torch.rand(3, 512, generator=torch.Generator().manual_seed(1)) < 0.1] = MARKER
    assert torch.equal(features_apart(forward, ids, MARKER)[..., 0], ids.double())
    assert sum(calls) < 2 * ids.numel()


@pytest.mark.parametrize("rows", ["packed", "across"])
def test_a_run_on_packed_rows(tmp_path: Path, rows: str) -> None:
    """Every position has a target; what was seen is in the summary."""
    chosen = (*GPT_SMALL, *LINES, f"+data.rows={rows}", "train.seq_len=32")
    assert train(tmp_path, *chosen) == 0
    found = summary(tmp_path)
    assert found["corpus"]["rows"] == rows
    assert found["train"]["tokens"] == 8 * 2 * 32
    assert found["test"]["documents"] > 1  # each scored alone all the same
    one = settings(tmp_path, *chosen)
    dataset = load_dataset(one)
    inputs, targets = draw_batch(dataset.train.ids, 0, 3, 2, 32, dataset.row_documents)
    marker = dataset.tokenizer.marker
    # What lies before a marker matters behind it, or does not.
    inputs[0, 20] = marker
    other = inputs.clone()
    other[0, :20] = (other[0, :20] + 1) % 5
    targets[:, :20] = targets[1] = -1
    losses = []
    for ids in (inputs, other):
        row = {"step": 0}
        Trainer(one, dataset.tokenizer.vocab_size, CPU).step((ids, targets), 0.0, row)
        losses.append(row["train/loss"])
    assert (abs(losses[0] - losses[1]) < 1e-6) == (rows == "packed")


def test_packed_rows_are_not_compiled(tmp_path: Path, command: Callable[..., Ended]) -> None:
    (tmp_path / "lines").write_text("a\nb\n" * 20)
    chosen = ("data=lines", f"data.path={tmp_path / 'lines'}", "data.rows=packed", "compile=true")
    ended = command("train", *chosen)
    assert ended.code == 2
    assert "compile=true would compile for each length" in ended.err
    ended = command("train", *chosen[:2], "data.rows=apart")
    assert ended.code == 2
    assert "rows='apart' is not one of alone, packed, across" in ended.err
