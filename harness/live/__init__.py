"""The live page: runs as they train, side by side. `python -m harness.live` serves it."""
