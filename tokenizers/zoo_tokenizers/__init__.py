"""Tokenizers behind one interface. The package is not called `tokenizers`, because transformers
imports Hugging Face's library of that name."""

from zoo_tokenizers.tokenizer import Tokenizer, TokenizerError, UnknownCharacter, smallest_unsigned

__all__ = ["Tokenizer", "TokenizerError", "UnknownCharacter", "smallest_unsigned"]
