"""Device and precision of a model, its parameters, FLOPs and memory."""
