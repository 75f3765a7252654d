"""Serving others: slice by slice the allocator decides on the ledger's requests, and the decision is published."""
