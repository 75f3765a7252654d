"""`ubcp init`: makes this machine's profile."""

from __future__ import annotations

from typing import Annotated

import typer

from ubcp_p2p.cli.account import ask_secret, open_account
from ubcp_p2p.cli.output import JsonOption, ProfileOption, emit_json, profile_at
from ubcp_p2p.errors import ConfigError


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
    json: JsonOption = False,
) -> None:
    """Make the profile.

    Nothing that exists is ever overwritten; where an earlier `ubcp init` was cut off, only what is missing is made.
    With neither --passphrase nor --no-passphrase, the account key is encrypted if $UBCP_PASSPHRASE is set.
    """
    from ubcp_p2p.keys import peer_id_of, to_base58
    from ubcp_p2p.peer.create import create_profile

    place = profile_at(profile)
    created = create_profile(place, new_passphrase=lambda: _new_passphrase(passphrase), open_account=open_account)
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
            }
        )
        return
    print(f"profile  {place.root}  (made: {', '.join(created.files)})")
    print(f"account  {created.account.hex()}  ({'with' if created.encrypted else 'no'} passphrase)")
    print(f"node     {peer_id}")
    print(f"Keep a copy of {place.account_key.name}: whoever has it is you. Only the node key can be replaced.")


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
