"""The tokenizers that the tests build: each file of conf/tokenizer/, and variants of two."""

from __future__ import annotations

from harness.cli.hydra_app import compose
from harness.common.paths import CONF
from harness.config.settings import Settings, read_settings
from zoo_tokenizers import Tokenizer

# Of files that name no vocabulary of their own.
NAMED = {
    "tiktoken": ["tokenizer.encoding=p50k_edit"],
    "hf": ["tokenizer.name=google-bert/bert-base-uncased"],
}
# Name: the file in conf/tokenizer and what is changed in it. A new file is tried by itself.
ON_THE_CORPUS = {
    path.stem: [f"tokenizer={path.stem}", *NAMED.get(path.stem, [])]
    for path in sorted((CONF / "tokenizer").glob("*.yaml"))
    if path.stem != "ids"  # of no text
} | {"unigram": ["tokenizer=sentencepiece", "tokenizer.model_type=unigram"]}
# What is known of some, to be sure that a test sees the right one.
VOCABULARIES = {
    "char": 65,
    "bytes": 256,
    "sentencepiece": 31_279,  # of the 32,000 asked for
    "unigram": 9_827,
    "p50k": 50_281,
    "gpt2": 50_257,
    "cl100k": 100_277,
    "tiktoken": 50_284,
    "bert": 30_522,
    "hf": 30_522,
    "bpe": 4_096,
}
LOSSY = {"bert", "hf"}
LOSSLESS = [name for name in ON_THE_CORPUS if name not in LOSSY]
ANY_TEXT = [name for name in LOSSLESS if name != "char"]  # whose vocabulary holds every text


def settings_of(*overrides: str) -> Settings:
    return read_settings(compose(list(overrides)))


def tokenizer_of(*overrides: str) -> Tokenizer:
    return settings_of(*overrides).build("tokenizer", Tokenizer)


def fitted(tokenizer: Tokenizer, text: str) -> Tokenizer:
    tokenizer.fit([text])
    return tokenizer


def joined(tokenizer: Tokenizer, pieces: list[str]) -> list[int]:
    return [id_ for piece in pieces for id_ in tokenizer.encode(piece).tolist()]
