"""The table of transformers' types in docs/ is what the code finds."""

from __future__ import annotations

import re

import pytest
import transformers

from docs import transformers_types as table

SPEED = re.compile(r"(\| )[\d.]+( \|)$")  # it differs from machine to machine


def page() -> tuple[str, dict[str, str]]:
    """Its head, and its lines by type, without speeds."""
    text = table.PAGE.read_text(encoding="utf-8")
    begin = text.index("| `")
    lines = text[begin:].splitlines()
    return text[:begin], {each.split("`")[1]: SPEED.sub(r"\1\2", each) for each in lines}


def found(model_type: str) -> str:
    return SPEED.sub(r"\1\2", table.line(model_type))


def made_with_this_release() -> bool:
    return f"transformers {transformers.__version__} and\n" in page()[0]


def test_the_page_is_the_command_s() -> None:
    head, lines = page()
    versions = re.search(r"transformers ([\d.]+) and\ntorch (\S+)\.\n", head)
    assert versions is not None
    assert head == table.head(*versions.groups()), "python -m docs.transformers_types"
    assert list(lines) == table.TYPES
    assert sum(" | yes | yes | yes | " in each for each in lines.values()) >= 35


@pytest.mark.parametrize("model_type", ["gpt2", "openai-gpt", "t5"])
def test_a_line_is_what_is_found(model_type: str) -> None:
    """One whose cache is used, one without, and one that is no decoder."""
    if not made_with_this_release():
        pytest.skip("the page is of another release of transformers")
    assert found(model_type) == page()[1][model_type]


def test_a_type_that_is_no_decoder_is_refused_in_words() -> None:
    for name in ("t5", "no_such_type"):
        words = f"refused: config.model_type={name} is not a causal language model"
        assert words in table.line(name)


@pytest.mark.long
@pytest.mark.parametrize("model_type", table.TYPES)
def test_every_line_is_what_is_found(model_type: str) -> None:
    if not made_with_this_release():
        pytest.skip("the page is of another release of transformers")
    assert found(model_type) == page()[1][model_type]
