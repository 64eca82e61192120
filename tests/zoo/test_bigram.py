"""The factored bigram: the laws hold, and it is the table's model, of a lower rank."""

from __future__ import annotations

import pytest
import torch

from harness.compute import costs as measure
from tests.zoo.architectures import bigram
from tests.zoo.laws import LAWS
from tests.zoo_models import VOCAB, fresh, maker, node, random_ids
from zoo.bigram import Bigram

FACTORED = "model.n_embd=6"


@pytest.mark.parametrize("law", LAWS)
def test_law_when_factored(law: str) -> None:
    LAWS[law](maker("bigram", FACTORED))


def test_costs_when_factored_equal_the_closed_forms() -> None:
    model_node = node("bigram", FACTORED)
    assert measure.parameters(fresh(model_node))["total"] == bigram.parameters(model_node, VOCAB)
    counted = measure.forward_flops(lambda: fresh(model_node), 16)
    assert counted == bigram.forward_flops(model_node, VOCAB, 16)


@torch.no_grad()
def test_two_factors_make_the_table() -> None:
    """Any table is the product of its singular vectors; a narrower product has a lower rank."""
    torch.manual_seed(0)
    table, factored, narrow = Bigram(9).double(), Bigram(9, 9).double(), Bigram(9, 3).double()
    left, scale, right = torch.linalg.svd(table.table.weight)
    factored.table.weight.copy_(left * scale)
    factored.head.weight.copy_(right.T)
    ids_BT = random_ids(2, 7, vocab_size=9)
    torch.testing.assert_close(factored(ids_BT), table(ids_BT), rtol=0, atol=1e-12)
    assert torch.linalg.matrix_rank(narrow(torch.arange(9)[None])[0]) == 3


@pytest.mark.parametrize("n_embd", [None, 16])
def test_the_first_loss_is_ln_v(n_embd: int | None) -> None:
    torch.manual_seed(0)
    logits_V = Bigram(500, n_embd)(torch.zeros(1, 1, dtype=torch.int64))[0, 0]
    assert logits_V.std() < 0.03


def test_a_width_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="n_embd=0 must be at least 1"):
        Bigram(9, 0)
