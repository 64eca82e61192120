"""The pages people read, and the scripts that make parts of them from the source."""
