"""Output for people in a terminal: previews, progress, status."""
