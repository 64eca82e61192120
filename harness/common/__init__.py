"""Shared basics: errors, atomic file writes, metric rows, signals. Imports no other package of the
zoo and no torch."""
