"""What this node keeps of the DHT for others: so much and no more, and names that cost nothing crowd nobody out.

hivemind keeps as many authors' records under a key as come, and sends them in one message: 1,200 of 4 KiB are more than
p2pd takes, and the key is found no more (tried). Of too many keys it drops the one that ends first, so that who lets
his live longest would keep all places.
"""

from __future__ import annotations

import heapq
import random
import time
from collections.abc import Callable
from typing import Any, Final

from ubcp_p2p.swarm.hivemind_parts import DHTLocalStorageBase

RECORDS_MAX: Final = 20_000  # in all: under 100 MB at the worst
RECORDS_PER_KEY_MAX: Final = 256  # 1.1 MiB at the worst, and as many signatures for whoever looks the key up
HEAP_SPARE: Final = 64  # entries of records that were stored again
KEYS_LOOKED_AT: Final = 16  # for one that may go: strangers have most places before all of these are another's


class RecordStorage(DHTLocalStorageBase):  # type: ignore[misc]  # hivemind is untyped
    """is_near: whether this node is connected to the author with that peer id, or is it.

    Where a place is wanted and none is left, a stranger's goes, drawn by lot; without one, anybody's. So who fills all
    places with names he made up keeps out none that are near, and of the others none for ever.
    """

    def __init__(self, is_near: Callable[[bytes], bool]) -> None:
        super().__init__()
        self._is_near = is_near
        self._records = 0  # at most as many are there: some have ended since

    def store_subkey(self, key: Any, subkey: Any, value: bytes, expiration_time: float) -> bool:
        """As DHTLocalStorage: whether it was stored. subkey: the author's peer id; the record is valid."""
        found = self.get(key)
        known = None if found is None else found.value.get(subkey)
        until_s = time.time() if known is None else known.expiration_time
        if expiration_time <= until_s:
            return False  # ended already, or no newer: hivemind would let the newer one end with it
        if found is None or subkey not in found.value:
            if found is not None and len(found.value) >= RECORDS_PER_KEY_MAX:
                self._drop_a_record(found.value)
            if self._records >= RECORDS_MAX:
                self._make_room()
            self._records += 1
        stored = bool(super().store_subkey(key, subkey, value, expiration_time))
        for kept in (self, self.data[key].value if key in self.data else self):
            if len(kept.expiration_heap) > 2 * len(kept.data) + HEAP_SPARE:
                _forget_what_is_gone(kept)
        return stored

    def _drop_a_record(self, records: Any) -> None:
        authors = random.sample(list(records.data), len(records.data))
        del records[next((author for author in authors if not self._is_near(author)), authors[0])]
        _forget_what_is_gone(records)

    def _make_room(self) -> None:
        """For some hundred records at once: each time all are counted."""
        self._records = sum(len(records) for _, (records, _) in self.items())
        while self.data and self._records > RECORDS_MAX * 99 // 100:
            key = self._farthest_of_some()
            self._records -= len(self.data[key].value)
            del self[key]
        _forget_what_is_gone(self)

    def _farthest_of_some(self) -> Any:
        """A key, if possible one that nobody near has a record under."""
        keys = random.sample(list(self.data), min(KEYS_LOOKED_AT, len(self.data)))
        return next((key for key in keys if not any(map(self._is_near, self.data[key].value.data))), keys[0])


class NoCache(DHTLocalStorageBase):  # type: ignore[misc]  # hivemind is untyped
    """Keeps nothing. Of a key that is stored and cached hivemind shows only what ends last, and anybody may ask a node
    to cache: one long-lived record would hide all others (tried)."""

    def store(self, key: Any, value: Any, expiration_time: float, subkey: Any = None) -> bool:
        """Refuse it."""
        return False

    def store_subkey(self, key: Any, subkey: Any, value: bytes, expiration_time: float) -> bool:
        """Refuse it."""
        return False


def _forget_what_is_gone(storage: Any) -> None:
    """hivemind's heap has an entry of all that was ever stored, until its time ends."""
    storage.expiration_heap = list(storage.key_to_heap.values())
    heapq.heapify(storage.expiration_heap)
