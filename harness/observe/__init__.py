"""A look inside while it trains: activations, gradients, updates, attention, loss by position."""
