"""Dishonest and broken models and tokenizers, written by someone who had not read the checks.

They were written from the list of tricks in the issue and from how scores are made. Their writer
saw the issue's sentences on what the referee would be, but neither its code nor its tests. They
must not be changed to suit a check: what escapes is reported.
"""

from __future__ import annotations

from tests.referee.blind import broken, models, outside
from tests.referee.blind.honest import HONEST
from tests.referee.blind.tokenizers import HONEST_TOKENIZERS, TOKENIZER_CHEATS

CHEATS: dict[str, type] = models.CHEATS | broken.CHEATS | outside.CHEATS

__all__ = ["CHEATS", "HONEST", "HONEST_TOKENIZERS", "TOKENIZER_CHEATS"]
