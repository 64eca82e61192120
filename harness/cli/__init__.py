"""How a command starts: Hydra's composition, options, one-line errors with the nearest name."""
