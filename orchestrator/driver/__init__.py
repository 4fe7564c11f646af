"""Runs one sweep, from plan to table: what is to run, the executor, the signals, the mirror's thread, the end."""
