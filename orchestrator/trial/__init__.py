"""One trial, from the store and back into it: on a worker, or here without Ray."""
