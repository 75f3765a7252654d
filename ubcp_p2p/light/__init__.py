"""Following a network from outside, without torch, hivemind or a node: py-libp2p and the ledger."""
