"""Tokenizers behind one interface. The name `tokenizers` belongs to Hugging Face's library."""

from zoo_tokenizers.end_marker import EndMarker
from zoo_tokenizers.tokenizer import (
    AssetFinder,
    NotUnicode,
    Tokenizer,
    TokenizerError,
    UnknownCharacter,
    WholeTexts,
    smallest_unsigned,
)

__all__ = [
    "AssetFinder",
    "EndMarker",
    "NotUnicode",
    "Tokenizer",
    "TokenizerError",
    "UnknownCharacter",
    "WholeTexts",
    "smallest_unsigned",
]
