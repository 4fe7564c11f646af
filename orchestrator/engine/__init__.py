"""How trials are run: the queue that decides what comes next, and the executors that run it, Ray Tune first."""
