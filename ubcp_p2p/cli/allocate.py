"""`ubcp allocate`: decides a slice that is described in a file, and says why each request got what it got."""

from __future__ import annotations

import json as json_module
from pathlib import Path
from typing import Annotated, Final

import typer

from ubcp_p2p.cli.output import JsonOption, emit_json
from ubcp_p2p.errors import ConfigError
from ubcp_p2p.log import printable

ID_CHARS: Final = 8  # of an id in words; --json has all of them
TOO_LARGE: Final = "leave out spaces, users without a request and requests of other slices: a slice has 10,000 at most"


def allocate(
    file: Annotated[
        Path | None, typer.Argument(metavar="FILE", help="A slice's problem (JSON).", show_default=False)
    ] = None,
    json: JsonOption = False,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON schema of FILE instead.")] = False,
) -> None:
    """Decide which requests a slice serves, exactly by the rules, and say why.

    The same file gives the same decision on every machine. Exit code 0: decided; 2: the file is wrong; 3: it cannot be
    read.
    """
    from ubcp_p2p.allocator.decide import decide
    from ubcp_p2p.allocator.document import DOCUMENT_BYTES_MAX, parse, to_json
    from ubcp_p2p.allocator.document import schema as schema_of
    from ubcp_p2p.files import read_limited

    if schema:
        if json:
            emit_json(schema_of())
        else:
            print(json_module.dumps(schema_of(), indent=2, ensure_ascii=False))
        return
    if file is None:
        raise ConfigError("FILE is missing", hint="`ubcp allocate --schema` prints what it must have")
    try:
        data = read_limited(file, bytes_max=DOCUMENT_BYTES_MAX, hint=TOO_LARGE)
    except FileNotFoundError:
        raise ConfigError(
            f"there is no file {file}", hint="name a slice's problem, as docs/allocator.md has it"
        ) from None
    problem = parse(data, where=str(file))
    document = to_json(problem, decide(problem))
    if json:
        emit_json(document)
        return
    for row in document["decisions"]:
        print(printable(f"{row['id'][:ID_CHARS]}  {row['explain']}"))
    print(
        f"{len(document['accepted'])} of {len(document['decisions'])} accepted; "
        f"{document['budget_used']:,} of {document['budget']:,} GFLOP used"
    )
