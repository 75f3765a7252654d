"""ubcp-p2p: a decentralized peer-to-peer training network (Universal Basic Computing Power)."""

__version__ = "0.1.0"
