"""Models and tokenizers that get a better score than they have earned, or are broken: a few lines
each, with the trick, and the name of the check that must see it."""
