"""Runs directories in an object store: objects, this machine's copy, leases, news."""
