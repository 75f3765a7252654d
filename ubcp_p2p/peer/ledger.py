"""The node's ledger: whose community it is in, where its store lies, and what the API takes in for it."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ubcp_p2p.charter.document import load_community
from ubcp_p2p.charter.values import Charters
from ubcp_p2p.errors import ConfigError, UbcpError
from ubcp_p2p.files import read_limited
from ubcp_p2p.ledger.ahead import by_clock
from ubcp_p2p.ledger.database import is_there
from ubcp_p2p.ledger.store import Store
from ubcp_p2p.peer.config import LedgerConfig
from ubcp_p2p.peer.profile import Profile

if TYPE_CHECKING:  # heavy: imported once the API answers
    from ubcp_p2p.swarm.ledger import LedgerEvent, LiveLedger
    from ubcp_p2p.swarm.network import Network

DESK_VERBS = ("submit-quote", "submit", "requests", "close-draft", "close")  # what peer/asking answers
LOOKUP_VERBS = (  # what peer/lookups answers
    "credits", "credits-of", "decisions", "stats", "entries", "ledger-show", "ledger-export",
)  # fmt: skip
APPEND_MAX = 256  # entries in one call
NONE_HERE = (
    'none: this node is in no community; save the charter file that your community gives out, set charter = "FILE" '
    "under [ledger] in config.toml, and start again"
)
OPENING = "its store is being opened"


def community_of(profile: Profile, config: LedgerConfig) -> Charters | None:
    """The charter that the configuration names; its path counts from the profile. Raises ConfigError, LocalIOError."""
    return load_community(profile.root / config.charter) if config.charter else None


def live_ledger(
    profile: Profile, charters: Charters, network: Network, observe: Callable[[LedgerEvent], None]
) -> LiveLedger:
    """Not opened yet."""
    from ubcp_p2p.swarm.ledger import LiveLedger

    alone = _is_new(profile.new_file, network.public)

    def open_store() -> Store:
        path = profile.ledger_store
        if is_there(path):
            store = Store.open(path, network=charters.network, until=by_clock(time.time()))
        else:
            store = Store.create(path, charters)
        profile.new_file.unlink(missing_ok=True)  # before anything is signed: from now on only peers can say
        return store

    return LiveLedger(network, open_store, alone=alone, observe=observe)


async def append(ledger: LiveLedger | None, request: dict[str, Any]) -> dict[str, Any]:
    """The verb `ledger-append`: signed entries in hexadecimal. Raises UbcpError."""
    if ledger is None:
        raise ConfigError("this node has no ledger", hint=NONE_HERE)
    forms = request["entries"]
    if not isinstance(forms, list) or len(forms) > APPEND_MAX:
        raise UbcpError(f"at most {APPEND_MAX} entries in one call")
    try:
        data = [bytes.fromhex(form) for form in forms]
    except (TypeError, ValueError):
        raise UbcpError("entries must be hexadecimal") from None
    return {"entries": await ledger.submit(data)}


async def publish(ledger: LiveLedger | None, request: dict[str, Any]) -> dict[str, Any]:
    """The verb `charter-publish`: a signed version of the charter in hexadecimal. Raises UbcpError."""
    if ledger is None:
        raise ConfigError("this node has no ledger", hint=NONE_HERE)
    try:
        form = bytes.fromhex(request["charter"])
    except (TypeError, ValueError):
        raise UbcpError("a charter must be hexadecimal") from None
    return {"added": await ledger.publish(form)}


def _is_new(path: Path, public: bytes) -> bool:
    """Whether this node's key was made in this very profile, which has never had a ledger."""
    with suppress(OSError, UbcpError):
        return read_limited(path, bytes_max=256).decode(errors="replace").strip() == public.hex()
    return False
