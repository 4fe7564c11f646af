"""Measurements: each module is a command, and ``results`` holds what they printed."""
