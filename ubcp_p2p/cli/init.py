"""`ubcp init`: makes this machine's profile."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ubcp_p2p.cli.account import ask_secret, open_account
from ubcp_p2p.cli.output import JsonOption, ProfileOption, emit_json, profile_at, say
from ubcp_p2p.errors import ConfigError

if TYPE_CHECKING:
    from ubcp_p2p.peer.config import CarbonConfig


def init(
    profile: ProfileOption = None,
    passphrase: Annotated[
        bool | None,
        typer.Option(
            "--passphrase/--no-passphrase",
            help="Encrypt the account key: asks for the passphrase, or takes $UBCP_PASSPHRASE.",
            show_default=False,
        ),
    ] = None,
    country: Annotated[
        str,
        typer.Option("--country", metavar="CODE", help="Where this machine is (FR, SE, …): for its carbon."),
    ] = "",
    zone: Annotated[
        str, typer.Option("--zone", metavar="ZONE", help="The zone in that country, where there are some: SE3, US-CA.")
    ] = "",
    json: JsonOption = False,
) -> None:
    """Make the profile.

    Nothing that exists is ever overwritten; where an earlier `ubcp init` was cut off, only what is missing is made.
    With neither --passphrase nor --no-passphrase, the account key is encrypted if $UBCP_PASSPHRASE is set.
    """
    from ubcp_p2p.keys import peer_id_of, to_base58
    from ubcp_p2p.peer.create import config_at, create_profile

    place = profile_at(profile)
    created = create_profile(
        place,
        new_passphrase=lambda: _new_passphrase(passphrase),
        open_account=open_account,
        config_text=config_at(country, zone),
    )
    if (country or zone) and place.config_file.name not in created.files:
        say(f"{place.config_file} was there already and is unchanged: write the country under [carbon] in it")
    peer_id = to_base58(peer_id_of(created.node))
    if json:
        emit_json(
            {
                "profile": str(place.root),
                "account": created.account.hex(),
                "node": created.node.hex(),
                "peer_id": peer_id,
                "encrypted": created.encrypted,
                "created": list(created.files),
                "country": place.config().carbon.country or None,
            }
        )
        return
    print(f"profile  {place.root}  (made: {', '.join(created.files)})")
    print(f"account  {created.account.hex()}  ({'with' if created.encrypted else 'no'} passphrase)")
    print(f"node     {peer_id}")
    print(f"carbon   {_carbon_words(place.config().carbon)}")
    print(f"Keep a copy of {place.account_key.name}: whoever has it is you. Only the node key can be replaced.")


def _carbon_words(carbon: CarbonConfig) -> str:
    from ubcp_p2p.carbon.table import find

    if not carbon.country:
        return "unknown until you say where this machine is: country under [carbon] in config.toml. It is never guessed"
    row = find(carbon.country, carbon.zone)
    return f"{row.g_per_kwh} g a kWh, the yearly average of {row.name} in {row.year}"


def _new_passphrase(wanted: bool | None) -> str | None:
    from ubcp_p2p.peer.config import passphrase_from_environment

    if wanted is False:
        return None
    if found := passphrase_from_environment():
        return found
    if wanted is None:
        return None
    first = ask_secret("Passphrase for the new account key: ")
    if not first:
        raise ConfigError("the passphrase is empty; nothing was made", hint="use --no-passphrase for a key without one")
    if ask_secret("The same again: ") != first:
        raise ConfigError("the two passphrases differ; nothing was made", hint="run it again")
    return first
