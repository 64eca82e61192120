"""Each parameter is in one group, with its rate; optimizers step by their algorithms."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
import torch
from torch import nn

from harness.cli.hydra_app import compose
from harness.common.errors import UsageError
from harness.common.paths import CONF
from harness.config.saved import load_settings
from harness.config.settings import Settings, read_settings
from harness.runs.resume import resumed_settings
from harness.training import muon as muon_module
from harness.training import run as run_module
from harness.training.lion import Lion
from harness.training.muon import Muon
from harness.training.optim import build_optimizer
from harness.training.parameter_groups import parameter_groups
from harness.training.run import run
from tests.small_runs import GPT_SMALL, cut_off, rows, settings, trace, train
from tests.training.small_gpt import small_gpt
from tests.zoo_models import TRAINED, fresh, node
from zoo.layers.causal_conv import FilterPerChannel
from zoo.layers.experts import ExpertLinear

OPTIMIZERS = sorted(path.stem for path in (CONF / "optimizer").glob("*.yaml"))


@cache
def with_decay(optimizer: str) -> Settings:
    return read_settings(compose([f"optimizer={optimizer}", "optimizer.weight_decay=0.25"]))


@pytest.mark.parametrize("name", TRAINED)
def test_every_optimizer_has_each_parameter_once_in_the_right_group(name: str) -> None:
    """Told from the kinds of modules alone: maps, kernels and recurrent weights are decayed,
    so is the head, tied or not; other embeddings and vectors never; and one step moves them all."""
    torch.manual_seed(0)
    model = fresh(node(name))
    names = {id(p): key for key, p in model.named_parameters()}
    held = [(module, p) for module in model.modules() for p in module.parameters(recurse=False)]
    embedded = {id(p) for module, p in held if isinstance(module, nn.Embedding)}
    filters = {id(module.weight) for module, _ in held if isinstance(module, FilterPerChannel)}
    filters |= {id(module.bias) for module, _ in held if isinstance(module, ExpertLinear)}
    matrices = {id(p) for _, p in held if p.dim() > 1} - embedded - filters
    output = {id(p) for p in model.head.parameters()}
    heads = {id(p) for p in model.head.parameters() if p.dim() > 1}
    assert embedded
    for optimizer_name in OPTIMIZERS:
        optimizer = build_optimizer(with_decay(optimizer_name), model)
        members = [(id(p), group) for group in optimizer.param_groups for p in group["params"]]
        assert sorted(key for key, _ in members) == sorted(names), optimizer_name
        assert {group["weight_decay"] for _, group in members} <= {0.0, 0.25}
        decayed = {key for key, group in members if group["weight_decay"]}
        assert decayed == matrices | heads, optimizer_name
        assert {key for key, group in members if group["hidden"]} == matrices - output
        before = {key: p.detach().clone() for key, p in model.named_parameters()}
        for parameter in model.parameters():
            parameter.grad = torch.randn_like(parameter)
        optimizer.step()
        for key, parameter in model.named_parameters():
            assert parameter.isfinite().all(), (optimizer_name, key)
            assert not torch.equal(parameter, before[key]), (optimizer_name, key)


def test_lion_steps_by_its_algorithm() -> None:
    """Chen et al. 2023, algorithm 2, by hand: two rates, one of them changing, with and without
    decay, and a weight that has no gradient in one step."""
    torch.manual_seed(0)
    decayed, free = (nn.Parameter(torch.randn(3, 4)) for _ in range(2))
    groups = [
        {"params": [decayed], "lr": 0.1, "weight_decay": 0.5, "hidden": True},
        {"params": [free], "lr": 0.03},
    ]
    optimizer = Lion(groups, lr=0.1, betas=(0.9, 0.99))
    expected = {p: p.detach().clone() for p in (decayed, free)}
    momentum = {p: torch.zeros(3, 4) for p in expected}
    for step in range(6):
        optimizer.param_groups[0]["lr"] = 0.1 / (step + 1)
        for p, rate, decay in ((decayed, 0.1 / (step + 1), 0.5), (free, 0.03, 0.0)):
            p.grad = None if p is free and step == 2 else torch.randn(3, 4)
            if p.grad is not None:
                direction = (0.9 * momentum[p] + 0.1 * p.grad).sign() + decay * expected[p]
                expected[p] -= rate * direction
                momentum[p] = 0.99 * momentum[p] + 0.01 * p.grad
        optimizer.step()
        for p, value in expected.items():
            torch.testing.assert_close(p.detach(), value)
    # Of each weight it keeps its momentum and nothing else.
    assert [list(state) for state in optimizer.state_dict()["state"].values()] == [["exp_avg"]] * 2


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_learns_and_resumes(tmp_path: Path, name: str) -> None:
    chosen = (*GPT_SMALL, f"optimizer={name}", "train.steps=30", "checkpoint.every=10")
    if name == "lion":  # its steps are of one size, and thirty of 3e-4 go nowhere
        chosen += ("optimizer.lr=3e-3",)
    train(tmp_path / "a", *chosen, "eval.every=30")
    scores = [row["val/nats_per_token"] for row in rows(tmp_path / "a") if "val/perplexity" in row]
    assert scores[-1] < scores[0] - 0.1
    (tmp_path / "a/run/checkpoints/step-00000030.pt").unlink()
    before = trace(tmp_path / "a")
    path = tmp_path / "a/run/summary.json"
    path.write_text(path.read_text().replace("finished", "running"))
    train(tmp_path / "a", *chosen, "eval.every=30", "resume=true")
    assert trace(tmp_path / "a") == before


def test_every_parameter_is_in_one_group_with_its_rate() -> None:
    model = small_gpt()
    parts = {"blocks": 0.5, "blocks.0.attention": 0.25, "token_embedding": 2.0}
    groups = parameter_groups(model, lr=0.01, lr_of=parts, weight_decay=0.1)
    found = {id(p): group for group in groups for p in group["params"]}
    assert len(found) == sum(len(group["params"]) for group in groups)
    for name, parameter in model.named_parameters():
        group = found[id(parameter)]
        expected = 0.01
        if name.startswith("blocks."):
            expected = 0.25 if ".attention." in name else 0.5
        if name == "token_embedding.weight":
            expected = 2.0
        assert group["lr"] == group["peak_lr"] == expected, name
        is_matrix = name.endswith(("qkv.weight", "projection.weight", "expand.weight"))
        is_matrix |= name == "token_embedding.weight"  # it is the head, too
        assert group["weight_decay"] == (0.1 if is_matrix else 0.0), name
    decayed = parameter_groups(model, 0.01, {}, 0.1, decay_embeddings=True)
    names = {id(p): name for name, p in model.named_parameters()}
    with_decay = {names[id(p)] for g in decayed if g["weight_decay"] for p in g["params"]}
    assert {"token_embedding.weight", "position_embedding.weight"} < with_decay
    with pytest.raises(UsageError, match="Did you mean blocks"):
        parameter_groups(model, 0.01, {"block": 1.0}, 0.0)
    with pytest.raises(UsageError, match="tied to token_embedding"):
        parameter_groups(model, 0.01, {"head": 1.0}, 0.0)
    untied = parameter_groups(small_gpt(tie_weights=False), 0.01, {"head": 1.0}, 0.0)
    assert sorted({group["lr"] for group in untied}) == [0.01, 1.0]


@pytest.mark.parametrize("decay_embeddings", [False, True])
def test_decay_means_the_same_for_a_tied_and_an_untied_head(decay_embeddings: bool) -> None:
    """Tied, the head's weight is the token embedding's."""
    for tied in (True, False):
        model = small_gpt(tie_weights=tied)
        groups = parameter_groups(model, 0.01, {}, 0.1, decay_embeddings)
        decay = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
        assert decay[id(model.head.weight)] == 0.1
        assert decay[id(model.position_embedding.weight)] == (0.1 if decay_embeddings else 0.0)


def test_the_rates_of_parts_follow_the_schedule(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    step = torch.optim.SGD.step

    def watched(self, *rest):  # noqa: ANN001, ANN002, ANN202
        seen.append(sorted(group["lr"] for group in self.param_groups))
        return step(self, *rest)

    monkeypatch.setattr(torch.optim.SGD, "step", watched)
    train(
        tmp_path / "a", *GPT_SMALL, "optimizer=sgd", "optimizer.lr=0.1", "train.steps=4",
        "schedule=step", "schedule.at=[2]", "optimizer.lr_of={token_embedding: 0.4, blocks: 0.1}",
    )  # fmt: skip
    seen = seen[-4:]  # before them, a step in little tells how much memory the optimizer needs
    assert [max(rates) for rates in seen] == pytest.approx([0.4, 0.4, 0.04, 0.04])
    assert [min(rates) for rates in seen] == pytest.approx([0.1, 0.1, 0.01, 0.01])
    logged = [row for row in rows(tmp_path / "a") if "lr" in row]
    for name, peak in {"lr": 0.1, "lr/blocks": 0.1, "lr/token_embedding": 0.4}.items():
        expected = [peak, peak, peak / 10, peak / 10]
        assert [row[name] for row in logged] == pytest.approx(expected)


def test_a_rate_that_no_parameter_has_is_not_logged(tmp_path: Path) -> None:
    train(tmp_path, "model=bigram", "train.steps=2", "optimizer.lr_of={table: 0.4}")
    logged = [row for row in rows(tmp_path) if "train/loss" in row]
    assert [row["lr"] for row in logged] == [None, None]
    assert logged[0]["lr/table"] > 0


def test_muon_orthogonalizes_matrices_and_kernels_and_leaves_the_rest_to_adamw() -> None:
    torch.manual_seed(0)
    model = nn.ModuleDict({"conv": nn.Conv1d(4, 6, 3), "embedding": nn.Embedding(5, 4)})
    groups = parameter_groups(model, lr=0.1, lr_of={}, weight_decay=0.0)
    optimizer = Muon(groups, lr=0.1, weight_decay=0.0)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for p in model.parameters():
        p.grad = torch.randn_like(p)
    gradient = {name: p.grad.clone() for name, p in model.named_parameters()}
    optimizer.step()
    update = (before["conv.weight"] - model["conv"].weight.detach()).flatten(1)
    reference = torch.nn.Parameter(before["conv.weight"].flatten(1).clone())
    reference.grad = gradient["conv.weight"].flatten(1)
    torch.optim.Muon([reference], 0.1, 0.0, 0.95, adjust_lr_fn="match_rms_adamw").step()
    torch.testing.assert_close(update, before["conv.weight"].flatten(1) - reference.detach())
    singular = torch.linalg.svdvals(update)
    assert singular.max() / singular.min() < 2.5  # Newton-Schulz brings them all near one
    for name in ("conv.bias", "embedding.weight"):
        moved = before[name] - dict(model.named_parameters())[name].detach()
        torch.testing.assert_close(moved, 0.1 * gradient[name].sign(), rtol=1e-3, atol=1e-4)
    optimizer.zero_grad()
    assert all(p.grad is None for p in model.parameters())


def test_an_untied_head_is_no_hidden_matrix() -> None:
    model = small_gpt(tie_weights=False)
    groups = parameter_groups(model, 0.01, {}, 0.1)
    group = next(g for g in groups if any(p is model.head.weight for p in g["params"]))
    assert not group["hidden"]
    assert group["weight_decay"] == 0.1


def test_what_this_machine_is_faster_in_is_chosen_and_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = (*GPT_SMALL, "optimizer=muon", "eval.sample_tokens=0")
    for module in (run_module, muon_module):
        monkeypatch.setattr(module, "faster_precision", lambda kind: "fp32")
    train(tmp_path / "whole", *chosen)
    cut_off(tmp_path / "cut", 4, monkeypatch, *chosen)
    for module in (run_module, muon_module):
        monkeypatch.setattr(module, "faster_precision", lambda kind: "bf16")
    asked = settings(tmp_path / "cut", *chosen, "resume=true")
    assert run(resumed_settings(asked, ["optimizer=muon"])) == 0
    assert trace(tmp_path / "cut") == trace(tmp_path / "whole")
    assert load_settings(tmp_path / "cut/run/config.yaml").optimizer["orthogonalize"] == "fp32"
    train(tmp_path / "other", *chosen)
    assert trace(tmp_path / "other") != trace(tmp_path / "whole")


def test_muon_moves_each_matrix_by_its_own_rate_and_by_the_schedules() -> None:
    """Of the same shape, in groups of their own; and not at all what has no gradient."""
    torch.manual_seed(0)
    weights = [nn.Parameter(torch.randn(6, 8)) for _ in range(2)]
    stacked = nn.Parameter(torch.randn(2, 6, 8))
    groups = [
        {"params": [p], "hidden": True, "stack": p.dim() - 2, "maps": [()], "lr": lr}
        for p, lr in zip((*weights, stacked), (0.1, 0.2, 0.4), strict=True)
    ]
    optimizer = Muon(groups, 0.1, weight_decay=0.0)
    gradient = torch.randn(6, 8)

    def moved() -> list[float]:
        before = [p.detach().clone() for p in (*weights, stacked)]
        optimizer.step()
        after = (*weights, stacked)
        return [float((p - b).detach().norm()) for p, b in zip(after, before, strict=True)]

    for p in weights:
        p.grad = gradient.clone()
    stacked.grad = gradient.expand(2, 6, 8).clone()
    first, second, both = moved()
    assert [second / first, both / first] == pytest.approx([2, 4 * 2**0.5], rel=1e-2)
    for group in optimizer.param_groups:
        group["lr"] /= 10
    assert moved() == pytest.approx([first / 10, second / 10, both / 10], rel=0.1)
    weights[0].grad = stacked.grad = None
    assert moved() == pytest.approx([0, second / 10, 0], rel=0.1)
