"""Checks of work in a run: what this node opens of its own, and what it checks of others (docs/verification.md)."""
