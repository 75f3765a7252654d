"""Makes a profile: account key, node key, owner statement, configuration; in that order, each whole or not at all.

A cut-off attempt leaves a prefix of the four files, which the next attempt completes. Nothing is ever overwritten.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ubcp_p2p.carbon.table import find
from ubcp_p2p.errors import ConfigError
from ubcp_p2p.files import create_new
from ubcp_p2p.keys import AccountKey, NodeKey, Ownership
from ubcp_p2p.peer.config import PeerConfig
from ubcp_p2p.peer.profile import Profile, ProfileLock

_COMMENT_AT: Final = 39  # the column at which the comments of the template begin
CONFIG_TEMPLATE: Final = """\
# ubcp node configuration. Every key may be left out; what is shown is its default.

[network]
# listen = ["/ip4/0.0.0.0/tcp/0"]      # own addresses; port 0 lets the system choose
# bootstrap = []                       # nodes to ask first: "/ip4/203.0.113.5/tcp/4001/p2p/12D3KooW…"
# announce = []                        # addresses to tell others, when this node cannot see them itself
# nat = "auto"                         # "auto": port mapping, relay, hole punching; "off": none of them
# dht_mode = "auto"                    # "auto", "server", or "client": a node that others cannot reach must be a client

[training]
# device = "auto"                      # "auto", "cpu", "cuda", "cuda:0"
# threads = 0                          # 0: as many as torch chooses
# checkpoints_kept = 3                 # 1 to 100, for each run
# sandbox = "auto"                     # of the trainer: "auto", "required" (else it does not train), "off"
# memory_mb = 0                        # what the trainer may allocate; 0: 80 % of this machine's
# read_dirs = []                       # folders beside /usr/share that a recipe may take data from
# silent_minutes = 30                  # a trainer at work that says nothing for so long is ended; 0: never

[owner]
# hours = []                           # when it works: "Mon-Fri 22:00-06:00", "Sat,Sun 00:00-24:00"; empty: always
# timezone = ""                        # of the hours, as "Europe/Berlin"; empty: this machine's own
# share_permille = 1000                # of its speed, 50 to 1000
# idle_minutes = 0                     # work only when nobody has used the machine for so long; 0: always
# idle_load_permille = 250             # and other programs use less than this of its processors
# on_battery = false
# power_w_max = 0                      # watts of what trains (GPU, else processors); 0: no cap
# temperature_c_max = 0                # of the hotter of the two; 0: no cap
# carbon_g_max = 0                     # g CO2 a kWh; needs [carbon]; 0: no ceiling
# refuse_purposes = []                 # of requests that are never served
# refuse_runs = []                     # names or run ids

[carbon]
# country = ""                         # where this machine is: "SE" or "SWE". Never guessed; empty: carbon is unknown
# zone = ""                            # of that country, where the table has zones: "SE3", "US-CA"
# schedule = ""                        # your own CSV file: "carbon.csv" in this directory, or a path
# api = ""                             # a URL that is asked for a forecast; nothing else is ever asked
# api_minutes = 15                     # between two questions, 5 to 1440

[ledger]
# charter = ""                         # your community's charter file: "charter.toml" in this directory, or a path

[serving]
# device_class = ""                    # one of the charter's: what this node gives to others' requests; empty: nothing
# gflops = 0                           # sustained; 0: what the charter says of that class
# rounds_unpaid_max = 5                # rounds done for nothing before a payer that does not pay is left

[api]
# port = 0                             # of the HTTP API, on 127.0.0.1 alone; 0: the system chooses

[log]
# level = "info"                       # "debug", "info", "warning", "error"
"""


def config_at(country: str, zone: str = "") -> str:
    """The template for a machine in this place; empty: not told. Raises ConfigError for a place that is not known."""
    text = CONFIG_TEMPLATE
    if country or zone:
        if not country:
            raise ConfigError("a zone needs its country", hint="give --country too")
        row = find(country, zone)
        for key, value in (("country", row.alpha2), ("zone", row.zone)):
            shown = f'# {key} = ""'.ljust(_COMMENT_AT)
            assert text.count(shown) == 1
            text = text.replace(shown, f'{key} = "{value}"'.ljust(_COMMENT_AT)) if value else text
    return text


@dataclass(frozen=True)
class Created:
    """What `create_profile` made; `files` are names in the profile."""

    account: bytes  # public key
    node: bytes  # public key
    encrypted: bool
    files: tuple[str, ...]


def create_profile(
    profile: Profile,
    *,
    new_passphrase: Callable[[], str | None] = lambda: None,
    open_account: Callable[[Path], AccountKey] = AccountKey.load,
    config_text: str = CONFIG_TEMPLATE,
) -> Created:
    """Make what the profile lacks.

    new_passphrase: asked only when an account key is made; None leaves the key unencrypted.
    open_account: loads an account key that is there already; may ask for its passphrase.

    Raises ConfigError when the profile is complete, or when what is there cannot be completed without losing something;
    LocalIOError when the profile is in use or cannot be written; what `open_account` raises.
    """
    PeerConfig.from_toml(config_text, where="the new config.toml")
    profile.make()
    with ProfileLock(profile):
        for stale in profile.root.glob(".*.tmp"):  # of an attempt that was killed; may hold a secret that nobody needs
            stale.unlink(missing_ok=True)
        _refuse_what_cannot_be_completed(profile)
        made = []

        def write(path: Path, data: bytes, mode: int) -> None:
            try:
                create_new(path, data, mode=mode)
            except FileExistsError:
                raise ConfigError(f"{path} has just appeared; nothing was overwritten", hint="run it again") from None
            made.append(path.name)

        if profile.account_key.exists():
            account = open_account(profile.account_key)
        else:
            account = AccountKey.generate()
            write(profile.account_key, account.to_bytes(new_passphrase()), 0o600)
        if profile.node_key.exists():
            node = NodeKey.load(profile.node_key)
        else:
            node = NodeKey.generate()
            write(profile.node_key, node.to_bytes(), 0o400)
            with suppress(FileExistsError):
                create_new(profile.new_file, node.public.hex().encode(), mode=0o600)
        if profile.owner_file.exists():
            _check_owner(profile, account, node)
        else:
            write(profile.owner_file, Ownership.make(account, node.public).to_bytes(), 0o600)
        if not profile.config_file.exists():
            write(profile.config_file, config_text.encode(), 0o600)
    return Created(account.public, node.public, AccountKey.is_encrypted(profile.account_key), tuple(made))


def _refuse_what_cannot_be_completed(profile: Profile) -> None:
    elsewhere = "use another --profile DIR, or move these files away"
    if all(p.exists() for p in (profile.account_key, profile.node_key, profile.owner_file, profile.config_file)):
        raise ConfigError(
            f"{profile.account_key} and the rest of this profile exist already; nothing was changed", hint=elsewhere
        )
    if profile.owner_file.exists():
        for path in (profile.account_key, profile.node_key):
            if not path.exists():
                raise ConfigError(
                    f"{path} is missing, but {profile.owner_file} names it: a new key would be another one",
                    hint=f"restore {path.name} from a backup; or {elsewhere}",
                )


def _check_owner(profile: Profile, account: AccountKey, node: NodeKey) -> None:
    statement = Ownership.load(profile.owner_file)
    if (statement.account, statement.node) != (account.public, node.public):
        raise ConfigError(
            f"{profile.owner_file} is about other keys than {profile.account_key} and {profile.node_key}",
            hint="restore the three files from one backup, or make a new profile with --profile DIR",
        )
