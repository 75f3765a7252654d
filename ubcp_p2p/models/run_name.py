"""What a run can be called. Its name stands in records, in the ledger, in URLs, and people make files of it."""

from __future__ import annotations

from ubcp_p2p.errors import ConfigError

NAME_BYTES_MAX = 64


def is_name(name: str) -> bool:
    """Whether a run can be called so. No name leads to another folder or is hidden in one."""
    short = 0 < len(name.encode("utf-8", "surrogatepass")) <= NAME_BYTES_MAX
    return short and name.isprintable() and "/" not in name and not name.startswith(".")


def check_name(name: str) -> None:
    """Raise ConfigError for what cannot be a run's name."""
    if not is_name(name):
        raise ConfigError(
            f"a run's name has 1 to {NAME_BYTES_MAX} bytes of printable characters, no slash and no leading dot, not "
            f"{name[:80]!r}",
            hint="give a short word: --run plays",
        )
