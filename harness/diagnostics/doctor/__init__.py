"""Whether this machine computes what it should, and what it is good for."""
