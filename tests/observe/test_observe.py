"""Watching a training: it sees what is there, says it under the right name, and changes nothing."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.cli.hydra_app import compose
from harness.common.errors import UsageError
from harness.common.rows import Histogram, Row
from harness.config.settings import ObserveSettings, Settings, read_settings
from harness.observe import findings, hooks, observer
from harness.observe.hooks import Layer, hook_forward
from harness.observe.observer import Observer
from tests.runs.test_resume import cut_off
from tests.small_runs import GPT_SMALL, rows, settings, train
from tests.zoo.laws import CPU
from tests.zoo_models import NAMES, VOCAB, fresh, length, maker, node, random_ids
from zoo.language_model import Cache, LanguageModel

EVERY_STEP = ("observe=full", "observe.every=1")


def chosen(*overrides: str) -> Settings:
    return read_settings(compose(["data=text", "data.path=any", *overrides]))


def looked_at(model: LanguageModel, *overrides: str) -> Row:
    """The row of a step whose batch is random."""
    row: Row = {"step": 0}
    ids_BT = random_ids(2, length(model, 16), vocab_size=model.vocab_size)
    with Observer(chosen(*EVERY_STEP, *overrides), model, CPU).update(row, ids_BT):
        pass
    return row


def names(row: Row, prefix: str, suffix: str = "") -> list[str]:
    return [
        name.removeprefix(prefix).removesuffix(suffix)
        for name in row
        if name.startswith(prefix) and name.endswith(suffix)
    ]


# Which layers there are


def test_a_transformers_layers_have_the_names_of_its_parts() -> None:
    row = looked_at(maker("gpt", "model.n_layer=1")())
    assert names(row, "activations/", "/mean") == [
        "token_embedding",
        "position_embedding",
        "blocks.0.attention_norm",
        "blocks.0.attention.qkv",
        "blocks.0.attention.projection",
        "blocks.0.feed_forward_norm",
        "blocks.0.feed_forward.expand",
        "blocks.0.feed_forward.gelu",
        "blocks.0.feed_forward.projection",
        "blocks.0",
        "norm",
    ]
    assert names(row, "attention/", "/entropy/0") == ["blocks.0.attention"]


def test_basic_watches_nonlinearities_blocks_and_matrices_in_numbers() -> None:
    model = maker("gpt", "model.n_layer=1")()
    row = looked_at(model, "observe.full=false")
    assert names(row, "activations/", "/mean") == [
        "blocks.0.feed_forward.gelu",
        "blocks.0",
        "features",
    ]
    assert names(row, "weights/", "/norm") == [
        name for name, parameter in model.named_parameters() if parameter.dim() > 1
    ]
    assert all(isinstance(value, (int, float)) for value in row.values())


@pytest.mark.parametrize("name", NAMES)
def test_every_architecture_can_be_watched(name: str) -> None:
    """Without a line of its own: layers and parameters all have finite numbers, heads entropies."""
    model = fresh(node(name, "train.seq_len=32"))
    row, again = looked_at(model), looked_at(model)
    assert list(row) == list(again)
    assert row == again, "watching changed the model"
    parameters = [parameter for parameter, _ in model.named_parameters()]
    assert names(row, "weights/", "/norm") == parameters
    for place in (layers := names(row, "activations/", "/mean")):
        assert isinstance(row[f"activations/{place}/histogram"], Histogram)
    assert layers
    numbers = [value for value in row.values() if not isinstance(value, Histogram)]
    assert all(math.isfinite(value) for value in numbers)
    heads = {"megabyte": 16, "perceiver_ar": 16, "hf": 48, "ladder": 12}
    attentive = name.startswith(("gpt", "llama", "mistral"))
    expected = heads.get(name, 16 if attentive else 0)
    entropies = [value for key, value in row.items() if key.startswith("attention/")]
    assert len(entropies) == expected
    assert all(0 <= entropy <= math.log(17) for entropy in entropies)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("mlp", ["tanh", "tanh.2"]),
        ("bow", ["tanh"]),
        ("rnn", ["layers.0", "layers.1"]),
        ("wavenet", [f"blocks.{n}.{f}" for n in range(10) for f in ("tanh", "sigmoid")]),
    ],
)
def test_nonlinearities_are_found_as_functions_and_as_modules(
    name: str, expected: list[str]
) -> None:
    row = looked_at(fresh(node(name)))
    assert names(row, "activations/", "/saturation") == expected
    assert names(row, "gates/", "/openness") == [n for n in expected if n.endswith("sigmoid")]
    assert ("output.0" in names(row, "activations/", "/inactive")) == (name == "wavenet")


# What is measured


class Known(LanguageModel):
    """Outputs that are known: units 0 to 7 are 0, .1, … of the id, through tanh, ReLU, a gate."""

    vocab_size, block_size, receptive_field = VOCAB, None, 1

    def __init__(self, scale_U: Tensor, shift_U: Tensor) -> None:
        super().__init__()
        self.scale_U, self.shift_U = scale_U, shift_U
        self.act = nn.ReLU()
        self.head = nn.Linear(len(scale_U), VOCAB)

    def features(self, ids_BT: Tensor, cache: Cache | None = None) -> Tensor:
        x_BTU = ids_BT[..., None] * self.scale_U + self.shift_U
        return self.act(x_BTU) + torch.tanh(x_BTU) * torch.sigmoid(x_BTU) + F.gelu(x_BTU)


def known() -> Known:
    return Known(torch.tensor([0.0, 0.0, 1.0, -1.0]), torch.tensor([-9.0, 9.0, -10.5, 0.0]))


def test_activations_of_known_outputs() -> None:
    ids_BT = torch.arange(VOCAB)[None]
    row: Row = {"step": 0}
    with Observer(chosen(*EVERY_STEP), known(), CPU).update(row, ids_BT):
        pass
    x_TU = ids_BT[0, :, None] * known().scale_U + known().shift_U
    assert row["activations/act/mean"] == pytest.approx(x_TU.relu().mean().item())
    assert row["activations/tanh/std"] == pytest.approx(x_TU.tanh().std(correction=0).item())
    # Unit 0 is at rest always, 1 never; 2 up to id 10, 3 everywhere (-0 at id 0).
    assert row["activations/act/inactive"] == pytest.approx((23 + 0 + 11 + 23) / 92)
    # |x| > atanh(.97) = 2.09: units 0 and 1 always, 2 but for ids 9 to 12, 3 but for 0 to 2.
    assert row["activations/tanh/saturation"] == pytest.approx((23 + 23 + 19 + 20) / 92)
    # The sigmoid is as near its ends from |x| > 2·atanh(.97) = 4.18 on: ids 7 to 14, 0 to 4.
    assert row["activations/sigmoid/saturation"] == pytest.approx((23 + 23 + 15 + 18) / 92)
    # GELU stays below 0.01 from |x| > 2.68 on the left side, and at 0.
    assert row["activations/gelu/inactive"] == pytest.approx((23 + 0 + 8 + 21) / 92)
    assert row["gates/sigmoid/openness"] == pytest.approx(x_TU.sigmoid().mean().item())
    assert sum(row["activations/act/histogram"].counts) == 92


def test_the_share_of_time_that_watching_takes_is_measured(tmp_path: Path) -> None:
    """`harness.bench` runs it for real; here, that it gives a share for both ways of observing."""
    from harness.diagnostics import bench
    from harness.training.run import load_dataset

    some = settings(tmp_path / "a", "model=bigram")
    dataset = load_dataset(some)
    model = some.build("model", LanguageModel, vocab_size=dataset.tokenizer.vocab_size)
    found = bench._observe_cost(some, dataset, CPU, model)
    assert list(found) == ["observe=basic", "observe=full"]
    assert all("a look every 100 steps takes as long as" in line for line in found.values())
    assert "more every evaluation" in found["observe=full"]


def dead_shares(model: LanguageModel, *batches: Tensor) -> Row:
    units = observer._DeadUnits()
    with hook_forward(model, units.observe):
        for ids_BT in batches:
            model(ids_BT, return_features=True)
    return units.shares()


def test_a_unit_is_dead_if_it_is_inactive_on_the_whole_pass() -> None:
    low, high = torch.tensor([[0, 1, 3]]), torch.tensor([[2, 10], [22, 3]])
    both = dead_shares(known(), low, high)
    assert both["dead/act/share"] == 2 / 4  # 0 and 3
    assert both["dead/gelu/share"] == 1 / 4  # 0 alone: 3 is near zero enough at 1 and 2 to pass
    assert both["dead/tanh/share"] == 2 / 4  # 0 and 1
    alone = dead_shares(known(), low)
    assert alone["dead/act/share"] == 3 / 4
    assert alone["dead/tanh/share"] == 3 / 4
    # Whatever comes first: one active moment is enough.
    assert dead_shares(known(), high, low) == both


def test_dead_units_of_a_network_by_its_biases() -> None:
    model = fresh(node("mlp", "model.activation=relu", "model.n_hidden=50"))
    with torch.no_grad():
        model.window.bias[:] = 100.0
        model.window.bias[:7] = -100.0
    shares = dead_shares(model, random_ids(3, 40), random_ids(2, 30, seed=5))
    assert shares["dead/relu/share"] == pytest.approx(7 / 50)


def test_attention_of_equal_scores_has_the_entropy_of_what_is_seen() -> None:
    """With all weights zero each position looks at all it may see alike."""
    seen = {
        "gpt": range(1, 17),
        "mistral": [min(t, 12) for t in range(1, 17)],
        # MEGABYTE's positions 0 to 16, the paper's, each within its patch of four.
        "megabyte": [*(1 + t % 4 for t in range(17))],
        # The latents of Perceiver AR, in groups of eight; what reads the context sees all of it.
        "perceiver_ar": [*(1 + t % 8 for t in range(16))],
    }
    places = {"megabyte": "local_blocks.0.attention", "perceiver_ar": "blocks.0.attention"}
    for name, visible in seen.items():
        options = {"perceiver_ar": ["model.n_latent=8"]}.get(name, [])
        model = fresh(node(name, "train.seq_len=16", *options))
        for parameter in model.parameters():
            nn.init.zeros_(parameter)
        row = looked_at(model)
        place = places.get(name, "blocks.0.attention")
        entropies = [row[f"attention/{place}/entropy/{head}"] for head in range(4)]
        expected = sum(map(math.log, visible)) / len(visible)
        assert entropies == pytest.approx([expected] * 4, rel=1e-5), name


def test_gradients_add_up_to_the_norm_that_is_logged(tmp_path: Path) -> None:
    train(tmp_path / "a", *GPT_SMALL, *EVERY_STEP, "train.clip=0.3", "train.accumulate=2")
    for row in rows(tmp_path / "a")[:-1]:
        norms = [row[f"gradients/{name}/norm"] for name in names(row, "gradients/", "/norm")]
        assert math.hypot(*norms) == pytest.approx(row["grad_norm_clipped"], rel=1e-4)


def test_an_update_of_sgd_is_the_rate_times_the_gradient(tmp_path: Path) -> None:
    plain = ("optimizer=sgd", "optimizer.momentum=0", "optimizer.nesterov=false")
    train(tmp_path / "a", *GPT_SMALL, *EVERY_STEP, *plain, "optimizer.lr=0.3")
    for row in rows(tmp_path / "a")[:-1]:
        for name in (updated := names(row, "updates/", "/log10_ratio")):
            closed = row["lr"] * row[f"gradients/{name}/norm"] / row[f"weights/{name}/norm"]
            if closed > 1e-5:  # smaller ones drown in the weights' rounding
                found = row[f"updates/{name}/log10_ratio"]
                assert found == pytest.approx(math.log10(closed), abs=1e-3)
    # A bias that began at zero has no ratio on the first step.
    assert "norm.bias" in updated
    assert "updates/norm.bias/log10_ratio" not in rows(tmp_path / "a")[0]


def test_an_update_is_what_really_happened(tmp_path: Path) -> None:
    """A limit on the norms that takes nearly all of the weights is a change as large as they are,
    whatever the optimizer did."""
    train(tmp_path / "a", *GPT_SMALL, *EVERY_STEP, "train.steps=1", "train.max_norm=1e-3")
    name = "updates/blocks.0.attention.qkv.weight/log10_ratio"
    assert rows(tmp_path / "a")[0][name] == pytest.approx(0, abs=0.1)


# Watching changes nothing

CASES: dict[str, tuple[str, ...]] = {
    "dropout": (*GPT_SMALL, "model.dropout=0.3", "train.accumulate=2", "train.ema=0.9"),
    "bf16": (*GPT_SMALL, "precision=bf16", "optimizer=muon"),
    "batch_norm": ("model=wavenet", "model.norm=batch_norm", "model.n_stack=1"),
    "frozen": (
        "model=mlp",
        "model.norm=batch_norm",
        "model.bias=false",
        "train.batch_norm=frozen",
    ),
    "megabyte": ("model=megabyte", "model.dropout=0.1"),
    "perceiver": ("model=perceiver_ar", "train.seq_len=32", "model.context_dropout=0.3"),
    "hf": ("model=hf", "model.config.num_hidden_layers=2"),
}
SEEN = ("activations/", "attention/", "gates/", "gradients/", "weights/", "updates/", "dead/")


def numbers(folder: Path) -> list[dict[str, Any]]:
    """What a run would have logged unwatched, but for the seconds."""
    return [
        {
            name: value
            for name, value in row.items()
            if not name.startswith((*SEEN, "val/loss_by_")) and name != "seconds"
        }
        for row in rows(folder)
    ]


def weights(folder: Path) -> dict[str, Tensor]:
    path = folder / "run/checkpoints/step-00000005.pt"
    return torch.load(path, weights_only=True)["model"]


@pytest.mark.parametrize("case", CASES)
def test_a_watched_training_is_the_same_bit_for_bit(tmp_path: Path, case: str) -> None:
    few = (*CASES[case], "train.steps=5")
    train(tmp_path / "off", *few, "observe=off")
    train(tmp_path / "full", *few, *EVERY_STEP)
    assert numbers(tmp_path / "full") == rows_without_seconds(tmp_path / "off")
    off, full = weights(tmp_path / "off"), weights(tmp_path / "full")
    assert all(torch.equal(off[name], full[name]) for name in off)


def rows_without_seconds(folder: Path) -> list[dict[str, Any]]:
    """All there is, so that a row of an unwatched run is seen to have nothing more."""
    return [{k: value for k, value in row.items() if k != "seconds"} for row in rows(folder)]


@contextlib.contextmanager
def careless(model: nn.Module) -> Iterator[None]:
    yield


def test_a_look_that_left_something_behind_would_be_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The negative control of the test above."""
    train(tmp_path / "off", *CASES["batch_norm"], "observe=off")
    monkeypatch.setattr(observer, "training_without_dropout", careless)
    train(tmp_path / "full", *CASES["batch_norm"], *EVERY_STEP)
    assert numbers(tmp_path / "full") != numbers(tmp_path / "off")


def test_a_watched_training_resumes_exactly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = (*CASES["dropout"], "observe=full", "observe.every=3")
    train(tmp_path / "whole", *watched)
    cut_off(tmp_path / "cut", 4, monkeypatch, *watched)
    train(tmp_path / "cut", *watched, "resume=true")
    assert rows_without_seconds(tmp_path / "cut") == rows_without_seconds(tmp_path / "whole")


def test_only_observed_steps_have_more_in_their_rows(tmp_path: Path) -> None:
    train(tmp_path / "a", *GPT_SMALL, "observe.every=3", "eval.every=5")
    found = {
        row["step"]: any(name.startswith(SEEN) for name in row) for row in rows(tmp_path / "a")
    }
    assert found == {step: step in (0, 3, 6) for step in range(9)}


def test_every_evaluation_of_a_full_watch_has_dead_units_and_losses_by_position(
    tmp_path: Path,
) -> None:
    train(tmp_path / "a", "model=megabyte", "observe=full", "observe.every=100")
    found = [row for row in rows(tmp_path / "a") if "val/nats_per_token" in row]
    assert [row["step"] for row in found] == [0, 4, 8]
    for row in found:
        assert names(row, "dead/", "/share") == [
            *(f"global_blocks.{n}.feed_forward.relu" for n in range(2)),
            *(f"local_blocks.{n}.feed_forward.relu" for n in range(2)),
        ]
        assert names(row, "val/loss_by_position/") == ["0", "1", "2-3", "4-7", "8-15"]
        assert names(row, "val/loss_by_patch_position/") == ["0", "1", "2", "3"]


def test_after_an_error_nothing_is_left_on_the_model() -> None:
    model = maker("gpt", "model.n_layer=1")()
    ids_BT = random_ids(1, 9)
    before = model(ids_BT)

    def fail(layer: Layer, output: Tensor) -> None:
        raise RuntimeError(layer.name)

    with pytest.raises(RuntimeError, match="token_embedding"), hook_forward(model, fail):
        model(ids_BT, return_features=True)
    assert "features" not in vars(model)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert not torch.overrides._get_current_function_mode_stack()
    assert torch.equal(model(ids_BT), before)


# What looks wrong


def test_findings_name_the_worst_and_speak_once() -> None:
    found = findings.Findings()
    found.add({"step": 3, "dead/a/share": 0.05, "updates/w/log10_ratio": -3.0})
    assert found.pop() == []
    shares = {f"dead/{layer}/share": 0.1 * layer for layer in range(6)}
    found.add({"step": 4, **shares, "activations/t/saturation": 0.6})
    assert found.pop() == [
        "step 4: dead units: 50% of 5, 40% of 4, 30% of 3, 2 more",
        "step 4: saturated outputs: 60% of t",
    ]
    found.add({"step": 5, "dead/a/share": 0.9, "updates/head/log10_ratio": -0.8})
    assert found.pop() == [
        "step 5: updates far above the usual 10^-3 of the weights: 10^-0.8 of head"
    ]
    assert found.pop() == []


def test_a_training_says_what_looks_wrong(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "harness")
    train(tmp_path / "a", "model=mlp", "optimizer.lr=3.0", "observe.every=1", "model.n_hidden=32")
    assert "updates far above the usual 10^-3 of the weights: 10^" in caplog.text
    assert "of tanh" in caplog.text


# The settings


def test_the_settings() -> None:
    assert chosen().observe == ObserveSettings(every=100, full=False)
    assert chosen("observe=off").observe == ObserveSettings(every=None, full=False)
    assert chosen("observe=full", "observe.every=7").observe == ObserveSettings(every=7, full=True)
    for wrong in ("observe=ful", "observe.every=0", "observe.every=often", "observe.eveyr=1"):
        with pytest.raises((UsageError, Exception), match="observe"):
            chosen(wrong)


@pytest.mark.long
def test_a_compiled_training_can_be_watched(tmp_path: Path) -> None:
    train(tmp_path / "off", *GPT_SMALL, "compile=true", "observe=off")
    train(tmp_path / "full", *GPT_SMALL, "compile=true", *EVERY_STEP)
    assert numbers(tmp_path / "full") == rows_without_seconds(tmp_path / "off")
    assert "activations/blocks.0/mean" in rows(tmp_path / "full")[3]


# Errors seeded on purpose


def no_fold(entropy_BHT: Tensor, y_BHTD: Tensor, scope: object) -> Tensor:
    return entropy_BHT


MUTANTS: dict[str, tuple[Callable[[pytest.MonkeyPatch], None], Callable[[], None]]] = {
    "segments taken for heads": (
        lambda patch: patch.setattr(hooks, "_fold_segments", no_fold),
        test_attention_of_equal_scores_has_the_entropy_of_what_is_seen,
    ),
    "functions not seen": (
        lambda patch: patch.setattr(hooks._Tracer, "_on_call", lambda *_: None),
        test_activations_of_known_outputs,
    ),
    "one inactive batch is enough": (
        lambda patch: patch.setattr(observer._DeadUnits, "shares", lambda self: {}),
        test_a_unit_is_dead_if_it_is_inactive_on_the_whole_pass,
    ),
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_seeded_error_is_noticed(mutant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seed, test = MUTANTS[mutant]
    seed(monkeypatch)
    with pytest.raises((AssertionError, KeyError)):
        test()
