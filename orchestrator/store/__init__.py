"""The store: the runs directory, which is the only truth about what has happened."""
