"""`ubcp charter new`, `sign`, `show`, `check`, `publish`: a community's rules, from the first draft to the next."""

from __future__ import annotations

import stat
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ubcp_p2p.cli.account import open_account
from ubcp_p2p.cli.charter_new import new
from ubcp_p2p.cli.output import JsonOption, ProfileOption, emit_json, profile_at
from ubcp_p2p.errors import ConfigError, Exit, UbcpError
from ubcp_p2p.log import printable

if TYPE_CHECKING:
    from ubcp_p2p.charter.prices import Price
    from ubcp_p2p.charter.values import Charter, SignedCharter

charter = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
charter.command("new")(new)

FileArgument = Annotated[Path, typer.Argument(metavar="FILE", help="The charter (TOML).")]
PreviousOption = Annotated[
    list[Path] | None,
    typer.Option("--previous", metavar="OLD", help="A version before; name each of them, from the first (repeatable)."),
]


@charter.command()
def sign(
    file: FileArgument, previous: PreviousOption = None, profile: ProfileOption = None, json: JsonOption = False
) -> None:
    """Add the signature of this profile's account, one of the stewards.

    Read what `ubcp charter show` and `check` say of it first. A second version and later ones are signed by stewards of
    the version before: name all versions before with --previous. The rest of the file stays as it is.
    """
    from ubcp_p2p.charter.document import load, parse, signature_table, to_toml
    from ubcp_p2p.charter.values import CharterError, check_signatures
    from ubcp_p2p.files import atomic_write

    place = profile_at(profile)
    place.require()
    signed = load(file)
    judge = _judge(file, signed, previous)
    account = _steward(profile, judge)
    try:
        check_signatures(signed, judge, least=0)
    except CharterError as error:
        raise UbcpError(f"{file}: {error.message}; nothing was signed", hint=error.hint) from None
    again = account in dict(signed.signatures)
    if not again:
        if not place.account_key.exists():
            raise ConfigError(f"{place.account_key} is not here", hint="sign on the machine where the account key is")
        key = open_account(place.account_key)
        pair = (key.public, key.sign("charter", signed.charter.id))
        text = f"{file.read_text(encoding='utf-8').rstrip()}\n{signature_table(*pair)}\n"
        signed = signed.signed([pair])
        try:
            whole = parse(text) == signed
        except ConfigError:  # as where somebody wrote the signatures as one array
            whole = False
        atomic_write(file, (text if whole else to_toml(signed)).encode(), mode=stat.S_IMODE(file.stat().st_mode))
    count, needed = len(signed.signatures), judge.threshold
    if json:
        emit_json({"file": str(file), "id": signed.charter.id.hex(), "steward": account.hex(), "added": not again,
                   "signatures": count, "threshold": needed})  # fmt: skip
        return
    done = "signed already" if again else "signed"
    rest = f"{needed - count} more must sign" if count < needed else "enough have signed"
    this = signed.charter
    print(printable(f"{file}: {this.name}, version {this.number}, {this.id.hex()}"))
    print(f"{done} by {account.hex()}; {rest} ({count} of at least {needed})")


@charter.command()
def show(file: FileArgument, json: JsonOption = False) -> None:
    """Say in plain language what a charter says, and what a credit costs to make."""
    from ubcp_p2p.charter.document import load, to_json
    from ubcp_p2p.charter.prices import prices
    from ubcp_p2p.charter.words import lines

    signed = load(file)
    found = lines(signed.charter)
    if json:
        emit_json(
            {
                "file": str(file),
                **_identity(signed),
                "signed_by": [key.hex() for key, _ in signed.signatures],
                "charter": to_json(signed),
                "per_credit": [_price(row) for row in prices(signed.charter.cost)],
                "words": [list(line) for line in found],
            }
        )
        return
    _print_lines([*found, *(("signed by", key.hex()) for key, _ in signed.signatures), ("id", signed.charter.id.hex())])
    if not signed.signatures and signed.charter.threshold:
        print("not signed yet: `ubcp charter sign`")


@charter.command()
def check(file: FileArgument, previous: PreviousOption = None, json: JsonOption = False) -> None:
    """Say whether a charter is valid and signed by enough stewards, and what in it is dangerous.

    Exit code 0: a community can begin with it, whatever the warnings say; 1: it is malformed, does not follow from the
    versions before, or too few stewards have signed. With --previous it also says what has changed.
    """
    from ubcp_p2p.charter.dangers import clock_period, dangers
    from ubcp_p2p.charter.document import load
    from ubcp_p2p.charter.values import CharterError, Charters, check_follows, check_signatures
    from ubcp_p2p.charter.words import changes

    problem: UbcpError | None = None
    document: dict[str, Any] = {"file": str(file)}
    if not file.exists():
        raise ConfigError(f"there is no charter at {file}", hint="`ubcp charter new` makes one")
    try:
        signed = load(file)
    except ConfigError as error:
        if not json:
            raise UbcpError(error.message, hint=error.hint) from None
        emit_json(document | {"valid": False, "problem": error.message, "hint": error.hint})
        raise typer.Exit(Exit.BAD) from None
    this = signed.charter
    before: Charter | None = None
    try:
        before = _before(file, signed, previous)
        if before is None:
            Charters(signed)
        else:
            check_follows(this, before)
            check_signatures(signed, before)
    except CharterError as error:
        problem = UbcpError(f"{file}: {error.message}", hint=error.hint)
    warnings = dangers(this, now_period=clock_period(this, time.time()))
    changed = changes(this, before) if before is not None else []
    if json:
        emit_json(
            document
            | {"valid": problem is None, "problem": problem and problem.message, "hint": problem and problem.hint}
            | _identity(signed)
            | {"signatures": len(signed.signatures), "threshold": (before or this).threshold}
            | {"dangers": [danger._asdict() for danger in warnings], "changes": [list(line) for line in changed]}
        )
        raise typer.Exit(Exit.OK if problem is None else Exit.BAD)
    _print_lines([("changed", f"{line.heading}: {line.text}") for line in changed])
    for danger in warnings:
        print(printable(f"danger: {danger.key}: {danger.what}; {danger.remedy}"))
    if problem is not None:
        raise problem
    words = f"{file}: valid: {this.name}, version {this.number}, {_count(len(signed.signatures), 'signature')}"
    print(printable(f"{words}; {_count(len(warnings), 'danger')}"))


@charter.command()
def publish(file: FileArgument, profile: ProfileOption = None, json: JsonOption = False) -> None:
    """Hand a next version of the charter to the running node, whose peers then get it.

    The node takes it when enough stewards of the version before have signed it. Others have it within a minute, as
    `ubcp status` says of each.
    """
    from ubcp_p2p.charter.document import load
    from ubcp_p2p.peer.control import call

    signed = load(file)
    added = call(profile_at(profile), "charter-publish", charter=signed.to_bytes().hex())["added"]
    if json:
        emit_json({"file": str(file), **_identity(signed), "added": added})
    else:
        words = f"{file}: {signed.charter.name}, version {signed.charter.number}"
        print(printable(f"{words}: {'the node has it now' if added else 'the node had it already'}"))


def _judge(file: Path, signed: SignedCharter, previous: Sequence[Path] | None) -> Charter:
    """The charter whose stewards sign this one. Raises ConfigError, CharterError."""
    from ubcp_p2p.charter.values import check_follows

    before = _before(file, signed, previous)
    if before is None:
        return signed.charter
    check_follows(signed.charter, before)
    return before


def _before(file: Path, signed: SignedCharter, previous: Sequence[Path] | None) -> Charter | None:
    """The version before, None of a first one. Raises ConfigError, CharterError.

    Who may sign it is what the stewards before have said, and those before them: so all versions are looked at.
    """
    from ubcp_p2p.charter.document import load
    from ubcp_p2p.charter.values import CharterError, Charters

    number = signed.charter.number
    loaded = sorted(((load(path), path) for path in previous or ()), key=lambda pair: pair[0].charter.number)
    if [one.charter.number for one, _ in loaded] != list(range(1, number)):
        raise ConfigError(
            f"{file} is version {number}: stewards of version {number - 1} sign it, and who they are is known from "
            "the first version on alone" if number > 1 else f"{file} is version 1: it follows no other",
            hint=f"--previous OLD names each version from 1 to {number - 1}" if number > 1 else "leave --previous out",
        )  # fmt: skip
    charters: Charters | None = None
    for one, path in loaded:
        try:
            if charters is None:
                charters = Charters(one)
            else:
                charters.add(one)
        except CharterError as error:
            raise CharterError(error.code, f"a version before it, {path}: {error.message}", hint=error.hint) from None
    return charters.newest if charters is not None else None


def _steward(profile: Path | None, judge: Charter) -> bytes:
    """This profile's account. Raises ConfigError unless it is a steward."""
    from ubcp_p2p.keys import Ownership

    account = Ownership.load(profile_at(profile).owner_file).account
    if account not in judge.stewards:
        named = ", ".join(f"{key.hex()[:16]}…" for key in judge.stewards) or "none: nobody has to sign it"
        raise ConfigError(f"{account.hex()} is no steward of {judge.name!r}", hint=f"its stewards: {named}")
    return account


def _identity(signed: SignedCharter) -> dict[str, Any]:
    this = signed.charter
    network = this.id.hex() if this.number == 1 else None
    return {"name": this.name, "number": this.number, "id": this.id.hex(), "network": network}


def _price(row: Price) -> dict[str, Any]:
    """Exact fractions as the nearest floats."""
    figures = {name: float(value) for name, value in row._asdict().items() if name != "device"}
    return {"device": row.device, **figures, "total": float(row.total)}


def _print_lines(found: list[Any]) -> None:
    """(heading, text) pairs; a heading is not repeated."""
    last = ""
    for heading, text in found:
        print(printable(f"{heading if heading != last else '':<12}{text}"))
        last = heading


def _count(number: int, what: str) -> str:
    return f"no {what}s" if not number else f"{number} {what}{'s' if number > 1 else ''}"
