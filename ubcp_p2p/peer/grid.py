"""The carbon source that a node's configuration describes."""

from __future__ import annotations

from ubcp_p2p.carbon.api import Api
from ubcp_p2p.carbon.schedule import Schedule, load
from ubcp_p2p.carbon.source import Source
from ubcp_p2p.carbon.table import Table, find
from ubcp_p2p.peer.config import CarbonConfig
from ubcp_p2p.peer.profile import Profile


def grid_of(profile: Profile, config: CarbonConfig) -> Source:
    """Reads the schedule, when there is one. Raises ConfigError naming file and line, LocalIOError."""
    table = Table(find(config.country, config.zone)) if config.country else None
    own: Schedule | Api | None = None
    if config.schedule:
        own = load(profile.root / config.schedule)
    elif config.api:
        own = Api(config.api)
    return Source(own, table)
