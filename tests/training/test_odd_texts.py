"""Small odd texts, with every default but the size of the training: none of the defaults is the
reason why one is refused."""

from __future__ import annotations

import itertools
import random
import re
from pathlib import Path

import pytest

from harness.cli.hydra_app import compose
from harness.common.errors import UsageError
from harness.config.settings import read_settings
from harness.training.run import run

TEXTS = {
    "cjk": "".join(random.Random(0).choices("天地玄黃宇宙洪荒日月盈昃辰宿列張", k=8000)),
    "dna": "".join(random.Random(0).choices("ACGT", k=8000)),
    "cr only": "one\rtwo\rthree four\r" * 600,
    "one character": "a" * 8000,
    "spaces": " " * 8000,
    "line breaks": "\n" * 8000,
    "no final line break": "\n".join(f"a line of text {number}" for number in range(600)),
    "nul": "\0" * 8000,
}
TOKENIZERS = {
    **{name: (f"tokenizer={name}",) for name in ("char", "bytes", "bpe", "bert")},
    "sentencepiece": ("tokenizer=sentencepiece",),
    "unigram": ("tokenizer=sentencepiece", "tokenizer.model_type=unigram"),
}
MODELS = {
    "bigram": ("model=bigram",),
    "gpt": ("model=gpt", "model.n_layer=1", "model.n_head=1", "model.n_embd=8"),
}
SIZE = (
    *("device=cpu", "precision=fp32", "train.steps=1", "train.batch_size=2"),
    *("eval.every=1000", "data=text"),
)
# The whole text in a few long tokens.
FEW = {
    *itertools.product(("one character", "spaces", "line breaks", "nul"), ("bpe", "bert")),
    *itertools.product(("one character", "spaces"), ("sentencepiece", "unigram")),
    ("dna", "bert"),
}
NOTHING = set(itertools.product(("line breaks", "nul"), ("sentencepiece", "unigram")))
EVERY = list(itertools.product(TEXTS, TOKENIZERS))
SOME = [
    *(("cjk", "bpe"), ("dna", "sentencepiece"), ("cr only", "bytes"), ("one character", "bpe")),
    *(("no final line break", "bpe"), ("line breaks", "unigram"), ("nul", "char")),
]


def ends_well(text: str, tokenizer: str, model: str, folder: Path) -> None:
    """It is trained and goes on to a sample, or the line says that it has too few tokens."""
    (folder / "text.txt").write_text(TEXTS[text], newline="")
    own = (f"data.path={folder}/text.txt", f"cache={folder}/cache", f"run_dir={folder}/{model}")
    settings = read_settings(compose([*SIZE, *TOKENIZERS[tokenizer], *MODELS[model], *own]))
    if (text, tokenizer) in FEW | NOTHING:
        with pytest.raises(UsageError) as refused:
            run(settings)
        few = r"the (train|val) split has \d\d? tokens of [\d,]+ bytes, which is too short"
        nothing = "data: sentencepiece can't learn from this text: to it line breaks and NUL"
        assert re.match(few if (text, tokenizer) in FEW else nothing, str(refused.value))
    else:
        assert run(settings) == 0
        assert (folder / model / "samples.txt").stat().st_size > 0


@pytest.mark.parametrize(("text", "tokenizer"), SOME)
def test_no_default_refuses_some_odd_texts(text: str, tokenizer: str, tmp_path: Path) -> None:
    ends_well(text, tokenizer, "gpt", tmp_path)


@pytest.mark.long
@pytest.mark.parametrize(("text", "tokenizer"), EVERY)
def test_no_default_refuses_any_odd_text(
    text: str, tokenizer: str, tmp_path: Path, assets: Path
) -> None:
    for model in MODELS:
        if model == "gpt" or tokenizer in ("char", "bytes", "bpe"):  # else a table of V² numbers
            ends_well(text, tokenizer, model, tmp_path)
