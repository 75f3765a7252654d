"""Ledgers with exactly one named fraud, for trying auditors: each kind is refused by one check alone.

A fraud comes after a valid ledger, by people of its own. Where one fault cannot be had without another (the two
branches of a node are a fork too), `also` says so.
"""

from ubcp_p2p.ledger.frauds import chains, credits
from ubcp_p2p.ledger.frauds.scene import FRAUDS, Fraud, Head, Planted, Scene

__all__ = ["FRAUDS", "Fraud", "Head", "Planted", "Scene", "chains", "credits"]
