"""How commands start: options, Hydra's composition, one-line errors with the nearest name."""
