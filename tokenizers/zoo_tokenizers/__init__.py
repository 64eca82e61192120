"""Tokenizers behind one interface. The package is not called `tokenizers`, because transformers
imports Hugging Face's library of that name."""

from zoo_tokenizers.tokenizer import (
    NotUnicode,
    Tokenizer,
    TokenizerError,
    UnknownCharacter,
    Vocabularies,
    smallest_unsigned,
)

__all__ = [
    "NotUnicode",
    "Tokenizer",
    "TokenizerError",
    "UnknownCharacter",
    "Vocabularies",
    "smallest_unsigned",
]
