"""Finds the content that the program reads at run time (recipes, cards): the installed package, then the checkout."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent
_ROOTS = (_PACKAGE / "_content", _PACKAGE.parent)  # the wheel ships <root>/models/… as ubcp_p2p/_content/models/…


def content_dir(name: str) -> Path:
    """The folder of shipped content called `name`, for example "models/recipes". Raises FileNotFoundError."""
    for root in _ROOTS:
        if (root / name).is_dir():
            return root / name
    raise FileNotFoundError(f"no content folder {name!r} under {' or '.join(str(root) for root in _ROOTS)}")
