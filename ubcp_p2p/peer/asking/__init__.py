"""Asking for computing: what a run would cost and whether it can be had, before its REQUEST is signed and told."""
