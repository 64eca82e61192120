"""Everything that is the same for all models: data, the loop, evaluation, runs, comparison."""
