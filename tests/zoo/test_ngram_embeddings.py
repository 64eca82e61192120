"""Embeddings of n-grams: beside those of tokens, in any architecture, and every law still holds."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from harness.cli.hydra_app import compose
from harness.common.errors import UsageError
from harness.config.model import build_model
from harness.config.settings import read_settings
from harness.runs.load import load_run
from harness.sampling.decode import SamplingParams, generate
from tests.small_runs import GPT_SMALL, cut_off, summary, trace, train
from tests.zoo.laws import LAWS
from tests.zoo_models import (
    TRAINED,
    VOCAB,
    fresh,
    maker,
    node,
    of_each_class,
    random_ids,
    randomize,
)
from zoo.language_model import LanguageModel
from zoo.layers.ngrams import LAST, Ngrams

ORDER, ROWS = 3, 97  # so that trigrams share rows
TAKING = [name for name in TRAINED if fresh(node(name)).takes_ngrams]
WITHOUT = {"bigram", "mlp", "megabyte", "hierarchical", "hf"}


def test_which_architectures_have_them() -> None:
    assert set(TRAINED) - set(TAKING) == WITHOUT
    for name in WITHOUT:
        with pytest.raises(ValueError, match=r"ngrams=3: [A-Za-z]+ has no embeddings of n-grams"):
            fresh(node(name)).add_ngrams(ORDER, ROWS)


def with_ngrams(name: str, random: bool = True) -> LanguageModel:
    torch.manual_seed(0)
    model = fresh(node(name)).add_ngrams(ORDER, ROWS).double().eval()
    return randomize(model) if random else model


@pytest.mark.parametrize("name", of_each_class(TAKING))
@pytest.mark.parametrize("law", [law for law in LAWS if law != "overfitting"])
def test_every_law_holds_with_them(law: str, name: str) -> None:
    LAWS[law](lambda random=True: with_ngrams(name, random))


@pytest.mark.parametrize("name", of_each_class(TAKING))
def test_a_model_begins_as_it_does_without_them(name: str) -> None:
    """They are zero, after any initialization too; each of their rows can be learnt."""
    ids = random_ids(2, 16)
    for scheme in ("default", "gpt2"):
        torch.manual_seed(0)
        plain = maker(name)(random=False).initialize(scheme)
        torch.manual_seed(0)
        model = fresh(node(name)).double().eval().add_ngrams(ORDER, ROWS)
        model.load_state_dict(plain.state_dict(), strict=False)
        assert torch.equal(model(ids), plain(ids))
    for weight in model.initialize("gpt2").ngrams.parameters():
        assert not weight.any()


@pytest.mark.parametrize(
    ("vocab", "order", "rows"), [(65, 3, 66**2), (255, 2, 4096), (4096, 2, 4097), (8190, 2, 8191)]
)
def test_rows_that_would_not_tell_old_tokens_apart_are_refused(
    vocab: int, order: int, rows: int
) -> None:
    """Of a number in base b, modulo a multiple of a factor of b, the first digit hardly counts."""
    with pytest.raises(ValueError, match=rf"ngram_rows={rows} and {vocab + 1} .* take a prime"):
        Ngrams(vocab, 4, order, rows)


@pytest.mark.parametrize(("vocab", "order", "rows"), [(65, 2, 66**2), (65, 3, 8191), (4, 3, 5**3)])
def test_every_token_of_an_n_gram_counts(vocab: int, order: int, rows: int) -> None:
    ngrams = Ngrams(vocab, 1, order, rows)
    for table in ngrams.tables:
        table.weight.data = torch.arange(rows, dtype=torch.float32)[:, None] + 1
    ids_BT = torch.randint(vocab, (64, order))
    for place in range(order):
        other_BT = ids_BT.clone()
        other_BT[:, place] = (ids_BT[:, place] + 1) % vocab
        last = ngrams(ids_BT, None)[:, -1] != ngrams(other_BT, None)[:, -1]
        assert last.float().mean() > 0.9


def test_what_is_added_is_the_table_of_what_was_read() -> None:
    """Row by row, one n-gram at a time, with tokens before the text as one more id."""
    torch.manual_seed(0)
    ngrams = Ngrams(VOCAB, 4, ORDER, ROWS)
    for table in ngrams.tables:
        torch.nn.init.normal_(table.weight)
    ids = random_ids(1, 9)[0].tolist()
    padded = [VOCAB, VOCAB, *ids]
    found = ngrams(torch.tensor([ids]), None)[0]
    for place, id_ in enumerate(ids):
        one, two = padded[place + 1], padded[place]
        pair = (id_ + (VOCAB + 1) * one) % ROWS
        triple = (id_ + (VOCAB + 1) * one + (VOCAB + 1) ** 2 * two) % ROWS
        expected = ngrams.tables[0].weight[pair] + ngrams.tables[1].weight[triple]
        torch.testing.assert_close(found[place], expected)


def test_enough_rows_give_each_ngram_its_own() -> None:
    ngrams = Ngrams(VOCAB, 1, 2, (VOCAB + 1) ** 2)
    torch.nn.init.normal_(ngrams.tables[0].weight)
    pairs = torch.cartesian_prod(torch.arange(VOCAB), torch.arange(VOCAB))
    assert len(ngrams(pairs, None)[:, 1].unique()) == VOCAB**2


@pytest.mark.parametrize("name", ["gpt", "lstm", "wavenet"])
def test_the_past_is_in_the_cache_and_rows_can_be_chosen(name: str) -> None:
    model, ids = with_ngrams(name), random_ids(3, 12)
    cache = model.init_cache(3)
    model(ids[:, :7], cache)
    assert torch.equal(cache.tensors[LAST], ids[:, 5:7])
    chosen = cache.select([2, 0])
    found = model(ids[[2, 0], 7:], chosen)
    torch.testing.assert_close(found, model(ids)[[2, 0], 7:])


def test_a_wavenet_with_holes_has_fewer_of_them() -> None:
    settings = read_settings(compose(["model=wavenet", "model.kernel_sizes=[2]",
                                      "model.dilations=[4]", "ngrams=2"]))  # fmt: skip
    model = build_model(settings, VOCAB)
    plain = build_model(settings.replace(ngrams=1), VOCAB)
    assert model.receptive_field == plain.receptive_field + 1
    seen, now = ({*range(1, each.receptive_field + 1)} - each.unseen for each in (plain, model))
    assert now == seen | {back + 1 for back in seen}
    assert plain.unseen > model.unseen


@pytest.mark.parametrize("model", ["gpt", "lstm"])
def test_a_run_has_them_and_is_resumed_and_sampled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str
) -> None:
    small = GPT_SMALL if model == "gpt" else ("model=lstm", "model.n_layer=1", "model.n_hidden=8")
    chosen = (*small, "ngrams=2", "ngram_rows=31", "train.steps=7")
    assert train(tmp_path / "a", *chosen) == 0
    assert cut_off(tmp_path / "b", 5, monkeypatch, *chosen) != 0
    assert train(tmp_path / "b", *chosen, "resume=true") == 0
    assert trace(tmp_path / "a") == trace(tmp_path / "b")
    assert summary(tmp_path / "a")["causal"]
    run = load_run(tmp_path / "a/run", "best", "cpu", [])
    table = run.model.ngrams.tables[0].weight
    assert table.shape[0] == 31
    assert table.any()
    prompt = torch.zeros(1, 1, dtype=torch.int64)
    made = generate(run.model, prompt, 40, SamplingParams(temperature=0))
    assert torch.equal(made, generate(run.model, prompt, 40, SamplingParams(temperature=0)))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("model=mlp", "ngrams=2"), "ngrams=2: MLP has no embeddings of n-grams"),
        (("model=gpt", "ngrams=0"), "ngrams"),
        (("model=gpt", "ngrams=2", "ngram_rows=0"), "ngram_rows"),
        (("model=gpt", "ngram_rows=31"), "ngram_rows=31 means nothing with ngrams=1"),
    ],
)
def test_what_can_not_be_had_is_refused(words: tuple[str, ...], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        build_model(read_settings(compose(list(words))), VOCAB)


def gradient_rows(model: LanguageModel, ids: Tensor) -> set[int]:
    """The rows of the table of pairs that a text reaches."""
    model(ids).sum().backward()
    assert model.ngrams is not None
    return set(model.ngrams.tables[0].weight.grad.any(1).nonzero()[:, 0].tolist())


def test_only_pairs_of_the_text_are_learnt() -> None:
    model = fresh(node("gpt")).add_ngrams(2, (VOCAB + 1) ** 2)
    ids = random_ids(1, 10)
    pairs = zip([VOCAB, *ids[0].tolist()], ids[0].tolist(), strict=False)
    assert gradient_rows(model, ids) == {new + (VOCAB + 1) * old for old, new in pairs}
