"""Where a run's numbers go: the contract, and the log that is always on."""

from harness.loggers.base import Histogram, Logger, Row, strict_json
from harness.loggers.local import Local

__all__ = ["Histogram", "Local", "Logger", "Row", "strict_json"]
