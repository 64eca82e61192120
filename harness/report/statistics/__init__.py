"""The order of the groups, and which of them differ: numbers without words or pictures."""
