"""The runs directory: the only truth about what has happened."""
