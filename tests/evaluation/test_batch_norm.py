"""Each mode of batch normalization against its formula, on known data."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from harness.common.errors import UsageError
from harness.common.interrupt import Stopped
from harness.evaluation import batch_norm
from harness.evaluation.score import token_nats
from tests.small_runs import losses, rows, summary, trace, train
from tests.zoo.laws import CPU
from zoo.mlp import MLP

MODEL = ("model=mlp", "model.norm=batch_norm", "model.bias=false", "model.n_hidden=32")


def model() -> MLP:
    torch.manual_seed(0)
    return MLP(11, 3, 2, 8, 16, norm="batch_norm", bias=False).double()


def inputs_of(found: MLP, batches: list[torch.Tensor]) -> list[torch.Tensor]:
    """What the first batch normalization was given, batch by batch, (N, C) each."""
    seen: list[torch.Tensor] = []
    hook = found.norms[0].register_forward_pre_hook(
        lambda _, given: seen.append(given[0].flatten(0, 1).detach())
    )
    for batch in batches:
        found(batch, return_features=True)
    hook.remove()
    return seen


def test_precise_statistics_are_those_of_the_population() -> None:
    found = model()
    batches = [torch.randint(11, (4, 6)) for _ in range(5)]
    before = {name: p.clone() for name, p in found.named_parameters()}
    values = torch.cat(inputs_of(found.eval(), batches))
    found.train()
    batch_norm.recompute(found, [(each, each) for each in batches], samples=5 * 24)
    # Equal batches: the law of total variance gives exactly the variance of all values together.
    norm = found.norms[0]
    torch.testing.assert_close(norm.running_mean, values.mean(0))
    torch.testing.assert_close(norm.running_var, values.var(0, unbiased=False))
    assert all(torch.equal(p, before[name]) for name, p in found.named_parameters())
    assert found.training
    assert norm.momentum == 0.1


def test_statistics_that_were_not_finished_are_what_they_were() -> None:
    """A signal comes while they are computed: what is saved then is of the step before."""
    found = model()
    before = copy.deepcopy(found.state_dict())

    def batches() -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        yield torch.randint(11, (4, 6)), torch.randint(11, (4, 6))
        raise Stopped(15)

    with pytest.raises(Stopped):
        batch_norm.recompute(found, batches(), samples=50)
    after = found.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_precise_statistics_stop_when_they_have_seen_enough() -> None:
    found, drawn = model(), []

    def batches():  # noqa: ANN202
        while True:
            drawn.append(1)
            yield torch.randint(11, (4, 6)), torch.randint(11, (4, 6))

    batch_norm.recompute(found, batches(), samples=50)
    assert len(drawn) == 3


def test_statistics_of_the_batch_at_hand_are_not_causal_and_leave_no_trace() -> None:
    found = model().eval()
    state = {name: buffer.clone() for name, buffer in found.named_buffers()}
    ids = torch.randint(11, (41,)).numpy()
    population = token_nats(found, ids, CPU)
    batch = token_nats(found, ids, CPU, batch_statistics=True)
    changed = ids.copy()
    changed[-1] = (changed[-1] + 1) % 11
    changed[-2] = (changed[-2] + 1) % 11
    assert (token_nats(found, changed, CPU)[:30] == population[:30]).all()
    assert (token_nats(found, changed, CPU, batch_statistics=True)[:30] != batch[:30]).any()
    assert all(torch.equal(buffer, state[name]) for name, buffer in found.named_buffers())


@pytest.mark.parametrize("mode", ["moving", "precise", "frozen", "batch"])
def test_every_mode_trains_and_resumes(tmp_path: Path, mode: str) -> None:
    chosen = (
        *MODEL,
        f"train.batch_norm={mode}",
        "checkpoint.every=7",
        "train.batch_norm_samples=64",
    )
    assert train(tmp_path / "a", *chosen) == 0
    before = trace(tmp_path / "a")
    assert summary(tmp_path / "a")["causal"] is (mode != "batch")
    (tmp_path / "a/run/checkpoints/step-00000008.pt").unlink()
    path = tmp_path / "a/run/summary.json"
    path.write_text(path.read_text().replace("finished", "running"))
    train(tmp_path / "a", *chosen, "resume=true")
    assert trace(tmp_path / "a") == before


def test_the_modes_train_alike_until_the_statistics_freeze(tmp_path: Path) -> None:
    for mode in ("moving", "precise", "frozen"):
        frozen = ("train.batch_norm_frozen=0.5", "train.batch_norm_samples=64")
        train(tmp_path / mode, *MODEL, f"train.batch_norm={mode}", *frozen, "eval.every=2")
    assert losses(tmp_path / "moving") == losses(tmp_path / "precise")
    assert losses(tmp_path / "moving")[:4] == losses(tmp_path / "frozen")[:4]
    assert losses(tmp_path / "moving")[4:] != losses(tmp_path / "frozen")[4:]
    scores = [
        [row["val/nats_per_token"] for row in rows(tmp_path / mode) if "val/perplexity" in row]
        for mode in ("moving", "precise")
    ]
    assert scores[0] != scores[1]


def test_an_average_of_weights_is_evaluated_with_the_frozen_statistics(tmp_path: Path) -> None:
    frozen = ("train.batch_norm=frozen", "train.batch_norm_frozen=0.5", "train.ema=0.9")
    train(tmp_path, *MODEL, *frozen, "train.batch_norm_samples=64")
    saved = torch.load(tmp_path / "run/checkpoints/step-00000008.pt", weights_only=True)
    statistics = [name for name in saved["model"] if "running" in name]
    assert statistics
    for name in statistics:
        assert torch.equal(saved["average"]["module." + name], saved["model"][name])
    assert not torch.equal(saved["average"]["module.head.weight"], saved["model"]["head.weight"])


def test_a_model_without_batch_normalization_refuses_its_modes(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="has no batch normalization"):
        train(tmp_path / "a", "model=gpt", "train.batch_norm=precise")
