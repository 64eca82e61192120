"""A search over rate, initialization and decay, the same for every model, and its choice."""
