"""MLflow, a mirror of the store."""
