"""What is measured of a layer, against closed forms; errors seeded in it are noticed."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.common.rows import Row
from harness.observe import hooks, observer
from harness.observe.hooks import hook_forward
from harness.observe.observer import Observer
from tests.observe.watching import EVERY_STEP, chosen, looked_at, names
from tests.small_runs import GPT_SMALL, rows, settings, train
from tests.zoo.laws import CPU
from tests.zoo_models import VOCAB, fresh, node, random_ids
from zoo.language_model import Cache, LanguageModel

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


# Errors seeded on purpose


def no_fold(entropy_BHT: Tensor, scope: object) -> Tensor:
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
