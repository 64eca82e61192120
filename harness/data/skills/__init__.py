"""Tasks that each need one skill, generated as a pure function of seed and step."""
