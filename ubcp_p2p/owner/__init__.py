"""What a peer's owner tunes: whether this machine works now, how much of it, for whom; pure rules with reasons."""
