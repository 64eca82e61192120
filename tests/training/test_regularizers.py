"""Label smoothing and max-norm do what their names say."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from harness.common.errors import UsageError
from harness.training import loss
from harness.training.max_norm import apply_max_norm, max_norm_weights
from tests.small_runs import GPT_SMALL, summary, train
from tests.training.small_gpt import small_gpt
from tests.zoo.laws import CPU
from tests.zoo_models import TRAINED, fresh, node
from zoo.gpt import GPT
from zoo.layers.causal_conv import FilterPerChannel
from zoo.layers.experts import ExpertLinear
from zoo.roles import Role


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


@pytest.mark.parametrize("name", TRAINED)
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
        if not isinstance(m, FilterPerChannel)  # which maps no inputs to a unit
        for p in m.parameters()
        if p.dim() > 1 and id(p) not in embedded
    }
    experts = [m.weight for m in model.modules() if isinstance(m, ExpertLinear)]
    found |= {id(weight): weight.flatten(0, 1) for weight in experts}
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
