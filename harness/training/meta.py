"""A model without weights, to ask what its configuration means."""

from __future__ import annotations

import torch

from harness.compute.costs import NoInitialization
from harness.config.settings import Settings
from zoo.language_model import LanguageModel


def meta_model(settings: Settings, vocab_size: int = 256) -> LanguageModel:
    """The configured model on the meta device: shapes without memory."""
    with torch.device("meta"), NoInitialization():
        return settings.build("model", LanguageModel, vocab_size=vocab_size)
