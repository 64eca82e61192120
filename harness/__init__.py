"""What all models share: data, training loop, evaluation, runs, comparison."""
