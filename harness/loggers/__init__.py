"""Where a run's numbers go: metrics.jsonl, which is always on, and what is fed from it."""
