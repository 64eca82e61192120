"""Where a model runs and what it costs: device and precision, parameters and FLOPs, memory."""
