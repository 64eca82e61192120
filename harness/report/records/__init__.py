"""Run folders read into records, and records grouped over their seeds."""
