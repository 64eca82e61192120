"""A recipe is what it says, and can be tried small."""

from __future__ import annotations

import pytest

from harness.cli import recipe
from harness.cli.hydra_app import compose
from harness.common.errors import UsageError
from harness.config import comments
from harness.config.settings import Settings, read_settings


def settings(*overrides: str) -> Settings:
    return read_settings(compose(list(overrides)))


def test_a_recipe_of_another_model_is_refused() -> None:
    line = ["model=gpt", "experiment=ladder_1_bigram"]
    with pytest.raises(UsageError, match="is a recipe for model=bigram, not for model=gpt"):
        compose(line)
    assert settings(*line, "names.model=mine").names.model == "mine"


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("experiment=ladder_5_feed_forward model=ladder", "ladder_5_feed_forward"),
        ("experiment=ladder_1_bigram tokenizer=bytes", "ladder_1_bigram+bytes"),
        ("experiment=seed_mlp tokenizer=char data=python_docs", "seed_mlp+char+python_docs"),
        ("experiment=compare model=gpt data=python_docs hydra.mode=RUN", "gpt"),
    ],
)
def test_a_run_on_other_text_or_tokens_has_another_name(line: str, name: str) -> None:
    assert settings(*line.split()).names.model == name


def test_a_small_try_has_the_same_shares(capsys: pytest.CaptureFixture[str]) -> None:
    assert settings("experiment=seed_mlp").schedule["at"] == [1000]
    small = settings("experiment=seed_mlp", "train.steps=5")
    assert small.schedule["at"] == [1000 / 1400]
    said = capsys.readouterr().err
    assert "is for 1400 steps: for 5 steps its schedule.at=[1000] becomes [0.7143]" in said
    cut = settings("experiment=seed_wavenet", "train.steps=625").schedule
    assert (cut["warmup"], cut["end"]) == (187.5 / 6250, 1250)  # both a tenth of what they were
    tokens = ("train.steps=null", "train.tokens=6250")
    other = settings("experiment=seed_wavenet", *tokens).schedule
    assert (other["warmup"], other["end"]) == (187.5 / 6250, 12500)


@pytest.mark.parametrize(
    ("typed", "at"),
    [
        (("train.steps=5", "schedule.at=[3]"), [3]),
        (("train.steps=2800",), [1000]),
    ],
)
def test_what_is_typed_and_what_fits_stays(typed: tuple[str, ...], at: list[int]) -> None:
    assert settings("experiment=seed_mlp", *typed).schedule["at"] == at


def test_every_amount_of_a_schedule_is_scaled() -> None:
    found = comments.meanings(comments.groups()["schedule"])
    assert {key for key, words in found.items() if "unit of the budget" in words} == set(
        recipe.AMOUNTS
    )
