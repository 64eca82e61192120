"""From text to batches: assets, corpora, encoded splits on disk, batches."""
