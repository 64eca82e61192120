"""Text from a model: sampling parameters, beam search, streaming text."""
