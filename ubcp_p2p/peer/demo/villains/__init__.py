"""Peers that cheat, for `ubcp demo --villain`: nodes of our own code with one hostile part swapped in.

Nothing imports this package: it is a program of its own, started on a profile of the demo's making.
"""
