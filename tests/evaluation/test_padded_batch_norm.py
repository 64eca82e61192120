"""Batch normalization of short documents, padded: as if each were given alone, without padding."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.data.batches import IGNORED, draw_batch
from harness.evaluation import batch_norm
from harness.training.run import load_dataset
from harness.training.trainer import Trainer
from tests.conftest import Ended
from tests.small_runs import rows, settings, trace, train
from tests.zoo.laws import CPU
from tests.zoo_models import fresh, node
from zoo.language_model import LanguageModel
from zoo.layers.batch_norm import BatchNorm

LENGTHS = (2, 7, 4)
NORM = ("model.norm=batch_norm", "model.bias=false")
MODELS = {
    "mlp": (*NORM, "model.context=3", "model.n_hidden=6"),
    "hierarchical": (*NORM, "model.n_layer=2", "model.n_embd=4", "model.n_hidden=6"),
    "wavenet": ("model.norm=batch_norm", "model.n_stack=1", "model.channels_residual=8"),
}
LINES = (
    "data=lines", "data.path=the-corpus", "model=hierarchical", *MODELS["hierarchical"],
    "eval.sample_tokens=0",
)  # fmt: skip


def padded() -> tuple[Tensor, Tensor]:
    """Inputs and targets, (3, 7) each."""
    ids_BT = torch.randint(11, (len(LENGTHS), max(LENGTHS)))
    targets_BT = torch.randint(11, ids_BT.shape)
    for row, length in enumerate(LENGTHS):
        targets_BT[row, length:] = IGNORED
    return ids_BT, targets_BT


def made(name: str) -> LanguageModel:
    torch.manual_seed(0)
    return fresh(node(name, *MODELS[name]), 11).double().train()


def test_a_layer_normalizes_the_text_and_what_is_before_it() -> None:
    torch.manual_seed(0)
    layer, plain = BatchNorm(5).double().train(), nn.BatchNorm1d(5).double().train()
    x_BSC = torch.randn(3, 9, 5, dtype=torch.float64, requires_grad=True)
    _, targets_BT = padded()
    with batch_norm.counting([layer], targets_BT):
        y_BSC = layer(x_BSC)
    examples = [x_BSC[row, : 2 + length] for row, length in enumerate(LENGTHS)]
    expected = plain(torch.cat(examples)).split([len(each) for each in examples])
    for row, (length, part) in enumerate(zip(LENGTHS, expected, strict=True)):
        torch.testing.assert_close(y_BSC[row, : 2 + length], part)
        assert not y_BSC[row, 2 + length :].any()
    torch.testing.assert_close(layer.running_mean, plain.running_mean)
    torch.testing.assert_close(layer.running_var, plain.running_var)
    assert layer.is_text is None
    gradient, wanted = (
        torch.autograd.grad(out.square().sum(), x_BSC, retain_graph=True)[0]
        for out in (y_BSC[:, :, 1:], torch.cat(expected)[:, 1:])
    )
    torch.testing.assert_close(gradient, wanted)


@pytest.mark.parametrize("leaves_out", [True, False])
@pytest.mark.parametrize("name", MODELS)
def test_what_the_padding_is_changes_nothing(name: str, leaves_out: bool) -> None:
    """Neither loss nor statistics; and it does where they are not told of it."""
    ids_BT, targets_BT = padded()
    found = []
    for shift in (0, 3):
        model = made(name)
        changed_BT = torch.where(targets_BT == IGNORED, (ids_BT + shift) % 11, ids_BT)
        norms = batch_norm.layers(model)
        with batch_norm.counting(norms, targets_BT) if leaves_out else nullcontext():
            logits = model(changed_BT)
        nats = F.cross_entropy(logits.flatten(0, 1), targets_BT.flatten(), ignore_index=IGNORED)
        found.append(torch.cat([nats.detach()[None], *(norm.running_var for norm in norms)]))
    assert torch.equal(*found) is leaves_out


@pytest.mark.parametrize("name", MODELS)
def test_precise_statistics_are_those_of_the_text(name: str) -> None:
    """Of two batches of unequal length: the mean and the biased variance of what the first layer is
    given, every position the same."""
    model, batch, seen = made(name), padded(), []
    short = tuple(part[:2, :2] for part in batch)
    norm = batch_norm.layers(model)[0]
    hook = norm.register_forward_pre_hook(lambda _, given: seen.append(given[0].detach()))
    batch_norm.recompute(model, [batch, short], samples=100)
    hook.remove()
    before = seen[0].shape[1] - max(LENGTHS)
    assert before == (2 if name == "hierarchical" else 0)
    kept = [seen[0][row, : before + length] for row, length in enumerate(LENGTHS)]
    kept += [seen[1][row, : before + min(length, 2)] for row, length in enumerate(LENGTHS[:2])]
    values = torch.cat(kept)
    torch.testing.assert_close(norm.running_mean, values.mean(0))
    torch.testing.assert_close(norm.running_var, values.var(0, unbiased=False))


def test_a_step_of_training_is_that_of_documents_one_by_one(tmp_path: Path) -> None:
    """In two micro-batches: the averages after it, from a plain computation."""
    (tmp_path / "corpus.txt").write_text("".join(f"{'ab' * (n % 5)}c{n}\n" for n in range(99)))
    chosen = settings(tmp_path / "a", *_lines(tmp_path), "train.accumulate=2", "precision=fp32")
    dataset = load_dataset(chosen)
    trainer = Trainer(chosen, dataset.tokenizer.vocab_size, CPU)
    model = copy.deepcopy(trainer.model)
    batch = draw_batch(dataset.train.ids, 0, 0, 4, 16, dataset.row_documents)
    assert all((part == IGNORED).any() for part in batch[1].split(2))
    observed = []

    @contextmanager
    def around_update(row: Any, inputs_BT: Tensor) -> Iterator[None]:
        observed.append(trainer.model.norms[0].is_text)
        yield

    trainer.step(batch, 1.0, {"step": 0}, around_update)
    assert torch.equal(observed[0], batch[1][:2] != IGNORED)
    norm = model.norms[0]
    for first in (0, 2):
        nodes = []
        for ids_T, targets_T in zip(*(part[first : first + 2] for part in batch), strict=True):
            text = ids_T[: int((targets_T != IGNORED).sum())]
            embedded = [torch.zeros(4)] * 3 + [*model.token_embedding(text)]
            nodes += [model.layers[0](torch.cat(pair)) for pair in pairwise(embedded)]
        values = torch.stack(nodes).detach()
        norm.running_mean = 0.9 * norm.running_mean + 0.1 * values.mean(0)
        norm.running_var = 0.9 * norm.running_var + 0.1 * values.var(0)
    torch.testing.assert_close(trainer.model.norms[0].running_mean, norm.running_mean)
    torch.testing.assert_close(trainer.model.norms[0].running_var, norm.running_var)


def _lines(folder: Path) -> list[str]:
    return [f"data.path={folder / 'corpus.txt'}" if "path=" in each else each for each in LINES]


@pytest.mark.parametrize("mode", ["moving", "precise", "frozen"])
def test_every_mode_trains_on_documents_and_resumes(tmp_path: Path, mode: str) -> None:
    (tmp_path / "corpus.txt").write_text("".join(f"{'ab' * (n % 5)}c{n}\n" for n in range(99)))
    chosen = (
        *_lines(tmp_path), f"train.batch_norm={mode}", "train.batch_norm_samples=64",
        "checkpoint.every=7", "observe=full", "observe.every=3",
    )  # fmt: skip
    assert train(tmp_path / "a", *chosen) == 0
    before = trace(tmp_path / "a")
    (tmp_path / "a/run/checkpoints/step-00000008.pt").unlink()
    path = tmp_path / "a/run/summary.json"
    path.write_text(path.read_text().replace("finished", "running"))
    train(tmp_path / "a", *chosen, "resume=true")
    assert trace(tmp_path / "a") == before
    assert rows(tmp_path / "a")[-1]["val/nats_per_token"] > 0


class Plain(nn.Module):
    """A user's own, with torch's layer."""

    def __init__(self, vocab_size: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, vocab_size)
        self.norm = nn.BatchNorm1d(vocab_size)

    def forward(self, ids: Tensor) -> Tensor:
        return self.norm(self.embedding(ids).mT).mT


PLAIN: Any = (
    "model._target_=zoo.plain.Plain", f"model.module={__name__}.Plain", "model.block_size=64",
    "trust=[tests]",
)  # fmt: skip


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (("data.rows=packed",), "batch normalization would count the padding"),
        (("train.batch_norm=batch",), "moving, precise or frozen"),
        (("train.batch_norm=batch", "data.rows=across"), "moving, precise or frozen"),
        (("train.batch_size=1",), "raise train.batch_size"),
        (PLAIN, "batch normalization would count the padding"),
    ],
)
def test_where_padding_would_count_it_is_refused(
    tmp_path: Path, command: Callable[..., Ended], overrides: tuple[str, ...], words: str
) -> None:
    (tmp_path / "corpus.txt").write_text("a\nb\n" * 20)
    chosen = [each for each in _lines(tmp_path) if not (overrides == PLAIN and "model" in each)]
    ended = command("train", *chosen, *overrides)
    assert ended.code == 2
    (line,) = ended.err.strip().splitlines()
    assert words in line
