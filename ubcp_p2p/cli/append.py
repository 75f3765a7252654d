"""`ubcp ledger append`: hands signed entries to the running node."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from ubcp_p2p.cli.output import JsonOption, ProfileOption, emit_json, profile_at
from ubcp_p2p.errors import ConfigError, Exit

CALL_CHARS_MAX = 512 * 1024  # of hexadecimal in one call to the node, which takes 1 MiB
CALL_ENTRIES_MAX = 256
TIMEOUT_S = 120.0


def append(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="Signed entries in hexadecimal, one a line; or an export.")
    ],
    profile: ProfileOption = None,
    json: JsonOption = False,
) -> None:
    """Hand signed entries to the running node.

    They are checked like any others, kept, and told to its peers: for what was signed elsewhere, as with an account key
    that is on no node. Exit code 1 when one is refused.
    """
    from ubcp_p2p.peer.control import call

    place = profile_at(profile)
    results: list[dict[str, Any]] = []
    for batch in _batches(_forms(file)):
        results += call(place, "ledger-append", timeout_s=TIMEOUT_S, entries=batch)["entries"]
    if json:
        emit_json({"entries": results})
    else:
        for result in results:
            print(f"{result['id']}  {_words(result)}")
    if any(result["outcome"] == "refused" for result in results):
        raise typer.Exit(Exit.BAD)


def _words(result: dict[str, Any]) -> str:
    match result["outcome"]:
        case "added":
            return "added"
        case "known":
            return "known already"
        case "early":
            return "held back: its time is not yet come by this machine's clock"
        case "pending":
            return f"waits for {', '.join(result['missing'])}"
        case _:
            return f"refused: {result['error']}"


def _batches(forms: Iterator[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    for form in forms:
        if batch and (len(batch) == CALL_ENTRIES_MAX or sum(map(len, batch)) + len(form) > CALL_CHARS_MAX):
            yield batch
            batch = []
        batch.append(form)
    if batch:
        yield batch


def _forms(path: Path) -> Iterator[str]:
    """Hexadecimal wire forms. Raises ConfigError, naming the line; UnreadableExport."""
    from ubcp_p2p.files import open_input
    from ubcp_p2p.ledger.export import MAGIC, RecordKind, read_export
    from ubcp_p2p.ledger.wire import SIGNED_BYTES_MAX

    with open_input(path, hint="name a file; it is read twice, so a pipe does not do") as file:
        is_export = file.read(len(MAGIC)) == MAGIC
        file.seek(0)
        if is_export:
            yield from (record.payload.hex() for record in read_export(file) if record.kind == RecordKind.ENTRY)
            return
        number = 0
        while line := file.readline(2 * SIGNED_BYTES_MAX + 2):
            number += 1
            form = line.strip().decode("ascii", errors="replace")
            if not form or form.startswith("#"):
                continue
            try:
                bytes.fromhex(form)
            except ValueError:
                raise ConfigError(
                    f"{path}, line {number}: not an entry in hexadecimal", hint="one signed entry a line, or an export"
                ) from None
            yield form
