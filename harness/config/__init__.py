"""Settings of a run: typed, validated, turned into objects, free of secrets."""
