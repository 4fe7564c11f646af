"""Measurements. Each module is a command; ``results`` holds their output."""
