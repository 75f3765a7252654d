"""What a command prints: one JSON document or words on stdout, everything else on stderr; and the options all share."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, TypeAlias

import typer

from ubcp_p2p.errors import ConfigError, UbcpError
from ubcp_p2p.log import printable

if TYPE_CHECKING:
    from ubcp_p2p.peer.profile import Profile

# extra -> a module of each distribution that only this extra brings
_EXTRAS: Final = {
    "peer": ("torch", "hivemind", "safetensors", "starlette", "uvicorn", "uvloop", "psutil"),
    "light": ("libp2p",),
}

ProfileOption: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--profile", metavar="DIR", help="The node's directory [default: $UBCP_HOME, or ~/.local/share/ubcp]."
    ),
]
JsonOption: TypeAlias = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]


def profile_at(path: Path | None) -> Profile:
    """The profile that --profile names, or the default one."""
    from ubcp_p2p.peer.config import default_profile_dir
    from ubcp_p2p.peer.profile import Profile

    return Profile((path or default_profile_dir()).absolute())


def emit_json(document: object) -> None:
    """Print the one JSON document of a `--json` command; values must be JSON's own (bytes as hex, no NaN)."""
    sys.stdout.write(json.dumps(document, allow_nan=False, ensure_ascii=False) + "\n")
    sys.stdout.flush()  # so that a closed pipe shows here, where it is handled


def say(text: str) -> None:
    """Tell the user something that is not the command's result: on stderr."""
    print(text, file=sys.stderr, flush=True)


def print_error(error: UbcpError) -> None:
    """`ubcp: error: …` and `ubcp: hint: …` on stderr; what a peer sent cannot move the cursor or forge a line."""
    print(f"ubcp: error: {printable(error.message)}", file=sys.stderr)
    if error.hint is not None:
        print(f"ubcp: hint: {printable(error.hint)}", file=sys.stderr)


def require_extra(extra: str) -> None:
    """Raise ConfigError with the pip command when what the extra brings is not installed.

    Call it first in a command, before the import that needs it. Imports nothing itself.
    """
    missing = [name for name in _EXTRAS[extra] if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"this command needs the extra '{extra}' ({', '.join(missing)} not installed)",
            hint=f"in the folder of ubcp's source: pip install -c constraints.txt '.[{extra}]'",
        )
