"""Paying for a run: the paymaster's side and the contributor's (docs/paying.md)."""
