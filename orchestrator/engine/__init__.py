"""Runs trials: the queue decides which trial is next, an executor (Ray Tune by default) runs it."""
