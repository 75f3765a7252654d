"""Trains one run in a process of its own: inner loop, outer step, checkpoints; `process` is the daemon's side of it."""
