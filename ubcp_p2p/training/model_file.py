"""A trained model as one file, for whoever is to use it: the state of a round, and what proves whose it is.

Format: safetensors, one tensor `state` (float32, P or 2P: `state.py`), as in checkpoints. The metadata holds the run,
the recipe as TOML, and the certificate by which more than half of the round's group signed the state's hash: so anybody
can check the file who has nothing else. Imports no torch.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Final

from ubcp_p2p.errors import ConfigError
from ubcp_p2p.files import open_atomic, open_input
from ubcp_p2p.training.checkpoint import HEADER_BYTES_MAX, head
from ubcp_p2p.training.state import ITEM_BYTES

FORMAT: Final = "ubcp/model/1"
_BLOCK: Final = 1 << 20


@dataclass(frozen=True)
class Facts:
    """What the file says of itself. Hashes and the certificate are hexadecimal; `rounds` are those of the whole run."""

    run: str
    run_id: str
    recipe: str
    recipe_hash: str
    recipe_toml: str
    round: int
    rounds: int
    state_hash: str
    certificate: str


def write(path: Path, facts: Facts, state: memoryview) -> None:
    """Write the file (mode 0600) in the place of an older one. Raises LocalIOError: then what was there stays."""
    metadata = {"format": FORMAT, **{name: str(value) for name, value in asdict(facts).items()}}
    with open_atomic(path) as file:
        file.write(head({"state": len(state) // ITEM_BYTES}, metadata))
        for start in range(0, len(state), _BLOCK):
            file.write(state[start : start + _BLOCK])


def read_facts(path: Path) -> Facts:
    """What a file says of itself; its state is not looked at. Raises ConfigError for what is no such file."""
    fault = ConfigError(f"{path} is no model that ubcp has fetched", hint="`ubcp runs fetch` writes such files")
    with open_input(path) as file:
        size = int.from_bytes(file.read(8), "little")
        if not 0 < size <= HEADER_BYTES_MAX:
            raise fault
        try:
            metadata = json.loads(file.read(size))["__metadata__"]
            texts = {field.name: metadata[field.name] for field in fields(Facts)}
            known = metadata["format"] == FORMAT and all(isinstance(text, str) for text in texts.values())
            if not known:
                raise fault
            return Facts(**{**texts, "round": int(texts["round"]), "rounds": int(texts["rounds"])})
        except (ValueError, KeyError, TypeError, RecursionError):
            raise fault from None
