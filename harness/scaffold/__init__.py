"""The starting files of a new model, which run as they are: the model, its settings and its closed
forms."""
