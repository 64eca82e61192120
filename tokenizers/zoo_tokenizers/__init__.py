"""Tokenizers behind one interface. The name `tokenizers` belongs to Hugging Face's library."""

from zoo_tokenizers.tokenizer import (
    AssetFinder,
    NotUnicode,
    Tokenizer,
    TokenizerError,
    UnknownCharacter,
    smallest_unsigned,
)

__all__ = [
    "AssetFinder",
    "NotUnicode",
    "Tokenizer",
    "TokenizerError",
    "UnknownCharacter",
    "smallest_unsigned",
]
