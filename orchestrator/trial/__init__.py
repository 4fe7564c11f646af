"""Runs one trial, on a worker or in this process without Ray, and writes its results into the store."""
