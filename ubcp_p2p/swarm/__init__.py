"""The network: p2pd, DHT, gossip, matchmaking, exchange and the rounds of a run. Never imports torch."""
