"""A profile as `ubcp init` leaves it, without its configuration and the account's key."""

from __future__ import annotations

from pathlib import Path

from ubcp_p2p.keys import AccountKey, NodeKey, Ownership
from ubcp_p2p.peer.profile import Profile


def owned_profile(folder: Path) -> Profile:
    """With a fresh node key, and the statement of a fresh account that it owns the node."""
    place = Profile(folder)
    place.make()
    key = NodeKey.generate()
    key.save(place.node_key)
    Ownership.make(AccountKey.generate(), key.public).save(place.owner_file)
    return place
