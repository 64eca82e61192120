"""Scores: exact evaluation, blocks of the test text, calibration."""
