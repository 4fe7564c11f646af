"""What makes a plan grow: search, race, confirm."""
