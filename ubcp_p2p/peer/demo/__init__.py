"""`ubcp demo`: a whole swarm on this machine, told as it happens."""
