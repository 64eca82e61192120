"""Optimizers, schedules, budgets and regularizers do what their names say."""

from __future__ import annotations

import itertools
import math
from functools import cache
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from harness.cli.hydra_app import compose
from harness.common.errors import UsageError
from harness.common.paths import CONF
from harness.common.terminal_plot import draw
from harness.config.settings import Settings, read_settings
from harness.training import loop, loss, recorder
from harness.training.lion import Lion
from harness.training.max_norm import apply_max_norm, max_norm_weights
from harness.training.muon import Muon
from harness.training.optim import build_optimizer
from harness.training.parameter_groups import parameter_groups
from harness.training.schedules import (
    Constant,
    Cosine,
    InverseSqrt,
    Linear,
    Schedule,
    StableDecay,
    Step,
)
from tests.small_runs import GPT_SMALL, losses, rows, settings, summary, trace, train
from tests.zoo.laws import CPU
from tests.zoo_models import NAMES, fresh, node
from zoo.gpt import GPT
from zoo.roles import Role

OPTIMIZERS = sorted(path.stem for path in (CONF / "optimizer").glob("*.yaml"))
SCHEDULES = sorted(path.stem for path in (CONF / "schedule").glob("*.yaml"))


def small_gpt(**options: bool) -> GPT:
    torch.manual_seed(0)
    return GPT(vocab_size=11, block_size=4, n_layer=1, n_head=2, n_embd=8, **options)


# Schedules


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (Constant(10), [1.0] * 10),
        (Constant(10, warmup=4, warmup_start=0.0), [0, 0.25, 0.5, 0.75, 1, 1, 1, 1, 1, 1]),
        (Constant(10, warmup=0.4, warmup_start=0.2), [0.2, 0.4, 0.6, 0.8, 1, 1, 1, 1, 1, 1]),
        (Linear(10, floor=0.5), [1 - 0.05 * s for s in range(10)]),
        (Cosine(10, floor=0.1), [0.1 + 0.45 * (1 + math.cos(math.pi * s / 10)) for s in range(10)]),
        (Cosine(5, end=10), [0.5 * (1 + math.cos(math.pi * s / 10)) for s in range(10)]),
        (Cosine(20, end=0.5), [0.5 * (1 + math.cos(math.pi * s / 10)) for s in range(10)]),
        (Step(10, at=[3, 0.7]), [1, 1, 1, 0.1, 0.1, 0.1, 0.1, 0.01, 0.01, 0.01]),
        (StableDecay(10, decay=4), [1, 1, 1, 1, 1, 1, 1, 0.75, 0.5, 0.25]),
        (StableDecay(10, decay=0.5, floor=0.5), [1] * 6 + [0.9, 0.8, 0.7, 0.6]),
        (InverseSqrt(10, warmup=1), [0.01] + [1 / math.sqrt(s) for s in range(1, 10)]),
    ],
)
def test_schedule_equals_its_formula(schedule, expected: list[float]) -> None:  # noqa: ANN001
    assert [schedule(step) for step in range(10)] == pytest.approx(expected, abs=1e-12)


def test_the_schedule_of_the_study_notes() -> None:
    """1e-3·(0.01 + 0.99·187/1500): what their warm-up reached, and took for its peak."""
    assert 1e-3 * Cosine(3000, warmup=1500)(187) == pytest.approx(1.334e-4, rel=1e-3)


@pytest.mark.parametrize(
    ("cls", "wrong"),
    [
        (Cosine, {"warmup": 11}),
        (Cosine, {"warmup": -1}),
        (Cosine, {"floor": 1.5}),
        (Cosine, {"warmup": 4, "end": 4}),
        (Cosine, {"warmup": 4, "end": 0.4}),
        (Cosine, {"end": 0}),
        (Cosine, {"end": -1}),
        (Constant, {"warmup_start": 2}),
        (StableDecay, {"warmup": 5, "decay": 6}),
        (Step, {"at": [11]}),
        (Step, {"at": [1], "factor": 0}),
        (InverseSqrt, {"warmup": 0}),
    ],
)
def test_schedules_refuse_what_they_cannot_do(cls, wrong: dict) -> None:  # noqa: ANN001
    with pytest.raises(ValueError, match=r"must|exceed"):
        cls(10, **wrong)


@pytest.mark.parametrize(
    ("name", "budget"), [*((name, "steps=8") for name in SCHEDULES), ("cosine", "tokens=768")]
)
def test_every_rate_is_the_schedule_s_bit_for_bit_and_after_a_resume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, budget: str
) -> None:
    """What is logged, what the optimizer used, and the formula; three micro-batches to a step."""
    used: list[float] = []
    step = torch.optim.AdamW.step

    def watched(self, *rest):  # noqa: ANN001, ANN002, ANN202
        used.append(*{group["lr"] for group in self.param_groups})
        return step(self, *rest)

    monkeypatch.setattr(torch.optim.AdamW, "step", watched)
    chosen = (
        *GPT_SMALL, f"schedule={name}", "checkpoint.every=4", "schedule.warmup=0.25",
        "optimizer.lr=0.003", "train.accumulate=3", "train.steps=null", f"train.{budget}",
        "eval.every=100",
    )  # fmt: skip
    train(tmp_path / "a", *chosen)
    plan = settings(tmp_path / "a", *chosen)
    schedule = plan.build("schedule", Schedule, total=plan.train.budget[1])
    spent = range(8) if budget == "steps=8" else range(0, 768, 96)
    expected = [0.003 * schedule(amount) for amount in spent]
    assert expected[0] < expected[1] < max(expected)
    # Before the loop, the zoo tries optimizers out on parameters of its own.
    assert used[-8:] == [row["lr"] for row in rows(tmp_path / "a") if "lr" in row] == expected
    (tmp_path / "a/run/checkpoints/step-00000008.pt").unlink()
    before = trace(tmp_path / "a")
    path = tmp_path / "a/run/summary.json"
    path.write_text(path.read_text().replace("finished", "running"))
    train(tmp_path / "a", *chosen, "resume=true")
    assert trace(tmp_path / "a") == before
    assert used[-4:] == expected[4:]


def test_a_schedule_can_be_looked_at() -> None:
    schedule = Linear(100, warmup=0.1, warmup_start=0.0)
    drawing = draw([0.02 * schedule(spent) for spent in range(0, 101, 5)], "0", "100 steps")
    assert "0.02 ┤" in drawing
    columns = [line[11:] for line in drawing.splitlines()[:10]]
    heights = [sum(line[c] == "█" for line in columns) for c in range(21)]
    assert heights[:3] == [0, 5, 10]
    assert heights[2:] == sorted(heights[2:], reverse=True)
    assert heights[-1] == 0


# Optimizers


@cache
def with_decay(optimizer: str) -> Settings:
    return read_settings(compose([f"optimizer={optimizer}", "optimizer.weight_decay=0.25"]))


@pytest.mark.parametrize("name", NAMES)
def test_every_optimizer_has_each_parameter_once_in_the_right_group(name: str) -> None:
    """Told from the kinds of modules alone: maps, kernels and recurrent weights are decayed,
    embeddings and what is tied to them are not, vectors never; and one step moves them all."""
    torch.manual_seed(0)
    model = fresh(node(name))
    names = {id(p): key for key, p in model.named_parameters()}
    held = [(module, p) for module in model.modules() for p in module.parameters(recurse=False)]
    embedded = {id(p) for module, p in held if isinstance(module, nn.Embedding)}
    matrices = {id(p) for _, p in held if p.dim() > 1} - embedded
    output = {id(p) for p in model.head.parameters()}
    assert embedded
    for optimizer_name in OPTIMIZERS:
        optimizer = build_optimizer(with_decay(optimizer_name), model)
        members = [(id(p), group) for group in optimizer.param_groups for p in group["params"]]
        assert sorted(key for key, _ in members) == sorted(names), optimizer_name
        assert {group["weight_decay"] for _, group in members} <= {0.0, 0.25}
        decayed = {key for key, group in members if group["weight_decay"]}
        assert decayed == matrices, optimizer_name
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


# Budgets


@pytest.mark.parametrize(
    ("budget", "steps"),
    [("tokens=100", 4), ("tokens=128", 4), ("bytes=96", 3), ("flops=1e6", None), ("steps=5", 5)],
)
def test_training_ends_with_its_budget(tmp_path: Path, budget: str, steps: int | None) -> None:
    train(tmp_path / "a", *GPT_SMALL, "train.steps=null", f"train.{budget}")
    cost = summary(tmp_path / "a")["train"]
    name, _, amount = budget.partition("=")
    before, last = rows(tmp_path / "a")[-2:]
    key = "step" if name == "steps" else name
    assert before[key] < float(amount) <= last[key]
    assert cost[name] == last[key]
    assert steps is None or cost["steps"] == steps


def test_a_budget_of_seconds_ends_by_the_clock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "perf_counter", itertools.count(0.0, 0.04).__next__)
    train(tmp_path / "a", *GPT_SMALL, "train.steps=null", "train.seconds=0.3", "eval.every=1000")
    before, last = rows(tmp_path / "a")[-2:]
    assert before["seconds"] < 0.3 <= last["seconds"]
    rates = [row["lr"] for row in rows(tmp_path / "a") if "lr" in row]
    assert rates[-1] < max(rates)


def test_schedules_follow_the_budget(tmp_path: Path) -> None:
    """Half of the tokens, half of the way down: as with half of the steps."""
    chosen = (*GPT_SMALL, "schedule=linear", "schedule.warmup=0.25")
    train(tmp_path / "a", *chosen, "train.steps=8")
    train(tmp_path / "b", *chosen, "train.steps=null", "train.tokens=256")
    assert losses(tmp_path / "a") == losses(tmp_path / "b")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("train.steps=5", "train.tokens=9"), "given twice"),
        (("train.steps=0",), "train.steps=0 must be above 0"),
        (("train.tokens=-1", "train.steps=null"), "must be above 0"),
        (("train.positions=first",), "all, last"),
        (("train.ema=1",), "train.ema"),
        (("train.label_smoothing=1.0",), "label_smoothing"),
        (("train.max_norm=0",), "max_norm"),
        (("optimizer.lr_of={nothing: 1.0}",), "no such part"),
        (("optimizer.lr_of={blocks: 0.1, norm: -5.0}",), r"optimizer\.lr_of\.norm=-5.0 must be"),
        (("optimizer.lr_of={head: 0.1}",), "head.weight is tied to token_embedding.weight"),
        (("optimizer=sgd", "optimizer.momentum=5"), r"optimizer\.momentum=5 must be .* below 1"),
        (("optimizer=sgd", "optimizer.momentum=0"), r"set optimizer\.nesterov=false"),
        (("optimizer=rmsprop", "optimizer.momentum=1"), r"optimizer\.momentum=1 must be"),
        (("optimizer=rmsprop", "optimizer.alpha=1.5"), r"optimizer\.alpha=1\.5 must be"),
        (("optimizer=muon", "optimizer.momentum=1.0"), r"optimizer\.momentum=1\.0 must be"),
        (("optimizer=muon", "optimizer.betas=[0.9,1.0]"), r"optimizer\.betas\[1\]=1\.0 must be"),
        (("optimizer=lion", "optimizer.betas=[-0.1,0.9]"), r"optimizer\.betas\[0\]=-0\.1 must be"),
        (("optimizer.lr=-1",), r"optimizer\.lr=-1 must be a finite number, at least 0"),
        (("optimizer.lr_of={blocks: inf}",), r"optimizer\.lr_of\.blocks=.* finite"),
    ],
)
def test_contradictions_are_refused(
    tmp_path: Path, overrides: tuple[str, ...], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        train(tmp_path / "a", *GPT_SMALL, *overrides)


def test_without_a_budget_it_is_2000_steps() -> None:
    assert read_settings(compose([])).train.budget == ("steps", 2000)


def test_early_stopping_keeps_the_best(tmp_path: Path) -> None:
    ruin = ("optimizer=sgd", "optimizer.lr=1.0", "schedule=constant", "train.clip=1")
    plan = (*GPT_SMALL, *ruin, "train.steps=40", "eval.every=2")
    train(tmp_path / "a", *plan, "train.patience=3")
    found = summary(tmp_path / "a")
    assert found["status"] == "finished"
    assert found["train"]["steps"] == found["best"]["step"] + 6 < 40
    assert "train.patience" in (tmp_path / "a/run/train.log").read_text()
    assert train(tmp_path / "a", *plan, "train.patience=3", "resume=true") == 0
    assert summary(tmp_path / "a") == found
    # Other patience is more to do; what comes of it is as if it had been so from the start.
    assert train(tmp_path / "a", *plan, "train.patience=5", "resume=true") == 0
    assert summary(tmp_path / "a")["train"]["steps"] > found["train"]["steps"]
    train(tmp_path / "b", *plan, "train.patience=5")
    assert trace(tmp_path / "a") == trace(tmp_path / "b")


# Regularizers


def test_label_smoothing_shapes_the_gradient_and_not_the_report() -> None:
    model = small_gpt().double()
    ids = torch.randint(11, (3, 5))
    aim = F.cross_entropy(
        model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten(), label_smoothing=0.05
    )
    aim.backward()
    expected = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    plain = F.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())
    total = loss.add_gradients(
        model, model(ids[:, :-1], return_features=True), ids[:, 1:], CPU,
        torch.tensor(1 / 12, dtype=torch.float64), 0.05,
    )  # fmt: skip
    assert total.item() / 12 == pytest.approx(plain.item(), rel=1e-6)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name], atol=1e-12, rtol=0)


def test_max_norm_bounds_what_comes_into_each_unit(tmp_path: Path) -> None:
    weight = nn.Parameter(torch.tensor([[3.0, 4.0], [0.3, 0.4]]))
    kernel = nn.Parameter(torch.full((2, 2, 3), 1.0))
    apply_max_norm([(weight, Role((0, 1))), (kernel, Role((0, 1, 2)))], 1.0)
    torch.testing.assert_close(weight.detach(), torch.tensor([[0.6, 0.8], [0.3, 0.4]]))
    torch.testing.assert_close(kernel.detach().flatten(1).norm(dim=1), torch.ones(2))
    train(tmp_path / "a", *GPT_SMALL, "train.max_norm=0.05")
    saved = torch.load(tmp_path / "a/run/checkpoints/step-00000008.pt", weights_only=True)
    model = GPT(summary(tmp_path / "a")["vocab_size"], 16, 2, 2, 16)
    model.load_state_dict(saved["model"])
    assert all(weight.norm(dim=1).max() < 0.0501 for weight, _ in max_norm_weights(model))
    assert model.token_embedding.weight.norm(dim=1).max() > 0.06  # an embedding is no unit's input


def test_max_norm_of_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no weights but embeddings"):
        train(tmp_path / "a", "model=bigram", "train.max_norm=3")
    assert not (tmp_path / "a/run").exists()


@pytest.mark.parametrize("name", NAMES)
def test_max_norm_knows_the_units(name: str) -> None:
    """transformers' Conv1D keeps (in, out): its columns are the units."""
    model = fresh(node(name))
    with torch.no_grad():
        for weight, _ in max_norm_weights(model):
            weight.fill_(1.0)
        apply_max_norm(max_norm_weights(model), 0.5)
    kinds = (nn.Linear, nn.Conv1d, nn.RNNBase)
    layers = [m for m in model.modules() if isinstance(m, kinds) or type(m).__name__ == "Conv1D"]
    embedded = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    found = {
        id(p): p if isinstance(m, kinds) else p.mT
        for m in layers
        for p in m.parameters()
        if p.dim() > 1 and id(p) not in embedded
    }
    assert found.keys() == {id(p) for p, _ in max_norm_weights(model)}
    for weight in found.values():
        norms = weight.flatten(1).norm(dim=1)
        torch.testing.assert_close(norms, torch.full_like(norms, 0.5))


def test_max_norm_trains_a_model_of_transformers(tmp_path: Path) -> None:
    small = ("model.config.hidden_size=16", "model.config.num_hidden_layers=1")
    small += ("+model.config.num_attention_heads=2", "optimizer.lr=0.1")
    assert train(tmp_path / "a", "model=hf", *small, "train.max_norm=0.05") == 0
    saved = torch.load(tmp_path / "a/run/checkpoints/step-00000008.pt", weights_only=True)
    weight = saved["model"]["body.h.0.mlp.c_fc.weight"]  # (in, out)
    assert weight.norm(dim=0).max() < 0.0501 < weight.norm(dim=1).max()


def test_the_moving_average_is_what_is_evaluated(tmp_path: Path) -> None:
    chosen = (*GPT_SMALL, "train.ema=0.5", "checkpoint.every=1", "train.steps=2", "eval.every=1")
    train(tmp_path / "a", *chosen)
    folder = tmp_path / "a/run/checkpoints"
    steps = [
        torch.load(folder / f"step-{step:08d}.pt", weights_only=True)["model"] for step in (1, 2)
    ]
    best = torch.load(folder / "best-00000002.pt", weights_only=True)["model"]
    # The first update starts the average; the second moves it half of the way.
    for name, value in best.items():
        torch.testing.assert_close(value, (steps[0][name] + steps[1][name]) / 2)


def test_the_moving_average_survives_a_resume(tmp_path: Path) -> None:
    chosen = (*GPT_SMALL, "train.ema=0.9", "checkpoint.every=4")
    train(tmp_path / "a", *chosen)
    before = trace(tmp_path / "a")
    (tmp_path / "a/run/checkpoints/step-00000008.pt").unlink()
    path = tmp_path / "a/run/summary.json"
    path.write_text(path.read_text().replace("finished", "running"))
    train(tmp_path / "a", *chosen, "resume=true")
    assert trace(tmp_path / "a") == before


def test_the_loss_on_the_last_position_alone(tmp_path: Path) -> None:
    train(tmp_path / "a", *GPT_SMALL, "train.positions=last", "train.steps=1", "schedule=constant")
    train(tmp_path / "b", *GPT_SMALL, "train.steps=1", "schedule=constant")
    chosen = settings(tmp_path / "a", *GPT_SMALL, "resume=true")
    from harness.data.batches import draw_batch
    from harness.training.run import load_dataset

    dataset = load_dataset(chosen)
    inputs, targets = draw_batch(dataset.train.ids, 0, 0, 2, 16)
    torch.manual_seed(0)
    model = GPT(dataset.tokenizer.vocab_size, 16, 2, 2, 16)
    expected = F.cross_entropy(model(inputs)[:, -1], targets[:, -1]).item()
    assert rows(tmp_path / "a")[0]["train/loss"] == pytest.approx(expected, rel=1e-6)
    assert summary(tmp_path / "a")["train"]["tokens"] == 2
    assert summary(tmp_path / "b")["train"]["tokens"] == 32
    cost = [summary(tmp_path / name)["train"]["flops"] for name in "ab"]
    assert 0.8 * cost[1] < cost[0] < cost[1]  # the head alone is spared


def test_a_bad_initialization_is_noticed() -> None:
    assert "more than 10 %" not in recorder.first_loss_line(math.log(65) * 1.05, 65)
    assert "more than 10 %" in recorder.first_loss_line(math.log(65) * 1.2, 65)
    assert "more than 10 %" not in recorder.first_loss_line(0.0, 1)  # one token: nothing to guess


def test_a_run_is_read_back_with_its_moving_average(tmp_path: Path) -> None:
    from harness.runs.load import load_run

    chosen = (*GPT_SMALL, "train.ema=0.99", "optimizer.lr=0.01")
    train(tmp_path / "a", *chosen, "data.split=[0.9,0,0.1]")
    run = load_run(tmp_path / "a/run", "best", "cpu", [])
    saved = torch.load(tmp_path / "a/run/checkpoints/step-00000008.pt", weights_only=True)
    for name, value in run.model.state_dict().items():
        assert torch.equal(value, saved["average"]["module." + name])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("model=bigram", "train.steps=null", "train.flops=1e6"), "costs no FLOPs"),
        (("model=bigram", "train.patience=3", "data.split=[0.9,0,0.1]"), "validation split"),
    ],
)
def test_what_would_never_end_is_refused(
    tmp_path: Path, overrides: tuple[str, ...], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        train(tmp_path / "a", *overrides)
    assert not (tmp_path / "a/run").exists()


def test_an_untied_head_is_no_hidden_matrix() -> None:
    model = small_gpt(tie_weights=False)
    groups = parameter_groups(model, 0.01, {}, 0.1)
    group = next(g for g in groups if any(p is model.head.weight for p in g["params"]))
    assert not group["hidden"]
    assert group["weight_decay"] == 0.1
