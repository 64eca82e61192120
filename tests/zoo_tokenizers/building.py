"""The tokenizers that the tests build: each file of conf/tokenizer/, and variants of two."""

from __future__ import annotations

from harness.cli.hydra_app import compose
from harness.config.settings import Settings, read_settings
from zoo_tokenizers import Tokenizer

# Name: the file in conf/tokenizer and what is changed in it.
ON_THE_CORPUS = {
    "char": ["tokenizer=char"],
    "bytes": ["tokenizer=bytes"],
    "sentencepiece": ["tokenizer=sentencepiece"],
    "unigram": ["tokenizer=sentencepiece", "tokenizer.model_type=unigram"],
    "p50k": ["tokenizer=p50k"],
    "gpt2": ["tokenizer=gpt2"],
    "cl100k": ["tokenizer=cl100k"],
    "tiktoken": ["tokenizer=tiktoken", "tokenizer.encoding=p50k_edit"],
    "bert": ["tokenizer=bert"],
    "hf": ["tokenizer=hf", "tokenizer.name=google-bert/bert-base-uncased"],
    "bpe": ["tokenizer=bpe"],
}
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
