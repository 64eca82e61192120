"""Figures by matplotlib: curves, scatter plots, and the internals of observed runs."""
