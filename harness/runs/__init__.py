"""A run's folder: one module per file, its reader and writer; checkpoints; resuming."""
