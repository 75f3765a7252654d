"""Who waits for what: entries and proofs whose references are missing, by number (SPEC §7.1). Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

COUNT_MAX: Final = 16_384
BYTES_MAX: Final = 64 << 20  # together; a stranger must not fill the disk with what refers to nothing
MISSING_MAX: Final = (
    16  # ids that one waits for at once: bounds the memory; when these are here it says what else it lacks
)


class Waiting:
    """Numbers rise with arrival."""

    def __init__(self) -> None:
        self._missing: dict[int, set[bytes]] = {}
        self._sizes: dict[int, int] = {}
        self._waiters: dict[bytes, set[int]] = {}
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._missing)

    def add(self, number: int, missing: Iterable[bytes], size: int) -> None:
        """`number`, of `size` bytes, waits for all of `missing`, of which at most MISSING_MAX are noted."""
        self.remove(number)
        ids = set(list(missing)[:MISSING_MAX])
        assert ids
        self._missing[number], self._sizes[number] = ids, size
        self._bytes += size
        for id_ in ids:
            self._waiters.setdefault(id_, set()).add(number)

    def remove(self, number: int) -> None:
        """It waits no more; nothing happens when it did not."""
        for id_ in self._missing.pop(number, ()):
            self._waiters[id_].discard(number)
            if not self._waiters[id_]:
                del self._waiters[id_]
        self._bytes -= self._sizes.pop(number, 0)

    def arrived(self, id_: bytes) -> list[int]:
        """The entry with this id is here: who has nothing left to wait for, oldest first. They stay until removed."""
        ready = []
        for number in sorted(self._waiters.pop(id_, ())):
            self._missing[number].discard(id_)
            if not self._missing[number]:
                ready.append(number)
        return ready

    def overflow(self) -> list[int]:
        """The oldest ones that are too many, or whose bytes are too many."""
        dropped = []
        count, size = len(self._missing), self._bytes
        for number in sorted(self._missing):
            if count <= COUNT_MAX and size <= BYTES_MAX:
                break
            dropped.append(number)
            count, size = count - 1, size - self._sizes[number]
        return dropped

    def missing(self) -> list[bytes]:
        """All ids that anything waits for, sorted."""
        return sorted(self._waiters)
