"""The loop and what it is made of: one update step, optimizers, schedules, guards, sweeps."""
