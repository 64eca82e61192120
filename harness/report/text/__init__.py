"""A comparison in words: number formats, sentences, and tables for a terminal and for papers."""
