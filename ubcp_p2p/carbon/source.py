"""What the owner has set up, as one provider: a schedule or an API first, the table where that says nothing."""

from __future__ import annotations

from dataclasses import replace

from ubcp_p2p.carbon.api import Api
from ubcp_p2p.carbon.schedule import Schedule
from ubcp_p2p.carbon.table import Table
from ubcp_p2p.carbon.values import CarbonUnknown, Intensity

UNTOLD = "carbon is unknown: this node has not been told where it is"
UNTOLD_HINT = 'set country = "…" under [carbon] in config.toml (docs/owner.md); it is never guessed'


class Source:
    """A provider made of the owner's own, and the table as the fallback; either may be missing."""

    def __init__(self, own: Schedule | Api | None, table: Table | None) -> None:
        self.own = own
        self.table = table

    @property
    def api(self) -> Api | None:
        """What has to be refreshed, if there is such a thing."""
        return self.own if isinstance(self.own, Api) else None

    def intensity(self, start: int, end: int) -> Intensity:
        why = ""
        if self.own is not None:
            try:
                return self.own.intensity(start, end)
            except CarbonUnknown as error:
                why = error.message
        if self.table is None:
            raise CarbonUnknown(why or UNTOLD, hint=UNTOLD_HINT)
        return replace(self.table.intensity(start, end), note=why)
