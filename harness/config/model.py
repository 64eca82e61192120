"""The model that a run's settings describe."""

from __future__ import annotations

from harness.common.errors import UsageError
from harness.config.settings import Settings
from zoo.language_model import LanguageModel


def build_model(settings: Settings, vocab_size: int) -> LanguageModel:
    """With its embeddings of n-grams, if there are any. Raises UsageError for settings that the
    architecture does not take."""
    model = settings.build("model", LanguageModel, vocab_size=vocab_size)
    rows = settings.ngram_rows
    if settings.ngrams == 1:
        if rows is not None:
            raise UsageError(f"ngram_rows={rows} means nothing with ngrams=1: give ngrams=2")
        return model
    try:
        return model.add_ngrams(settings.ngrams, rows)
    except ValueError as error:
        raise UsageError(str(error)) from error
