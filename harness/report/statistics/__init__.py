"""The ranking of groups, and which of them differ significantly."""
