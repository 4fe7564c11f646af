"""Runs directories in an object store: the objects, this machine's copy, the driver's lease, news between machines."""
