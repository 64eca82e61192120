"""The settings of a run: typed, checked, and turned into objects; no secrets in them."""
