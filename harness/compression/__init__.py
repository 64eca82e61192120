"""Files compressed by a trained model and arithmetic coding: the proof that a score needs no
future, since whoever decompresses has only the past."""
