"""Figures by matplotlib: curves, scatter plots, and what was seen inside runs."""
