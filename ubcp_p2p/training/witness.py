"""The trainer's part in checks: it remembers its last trails to open them, and judges stretches of others' trails.

Both use the session's own network between its commands, and leave the inner optimizer as they found it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from ubcp_p2p.codec import MalformedMessage
from ubcp_p2p.errors import TrainingError
from ubcp_p2p.models.recipe import Recipe
from ubcp_p2p.training.ends import DrawnEnd
from ubcp_p2p.training.inner import InnerLoop
from ubcp_p2p.training.opening import Opening, require_committed
from ubcp_p2p.training.recorder import Recorder, Trail, open_stretch
from ubcp_p2p.training.redo import judge
from ubcp_p2p.training.shape import shape_of
from ubcp_p2p.training.verdict import Claim, Finding, Verdict

# The last round's, asked for while the next one is trained, and that one's.
TRAILS_KEPT: Final = 2


class Witness:
    """Trails of one session, and checks with its network."""

    def __init__(self, recipe: Recipe, loop: InnerLoop) -> None:
        self.shape = shape_of(recipe)
        self._recipe, self._loop = recipe, loop
        self._trails: OrderedDict[bytes, Trail] = OrderedDict()

    def recorder(self) -> Recorder:
        """For a round that begins now."""
        return Recorder(self._loop, self.shape.stretch, self._recipe.rounds.local_steps)

    def keep(self, trail: Trail) -> bytes:
        """Remember a finished trail, so that it can be opened; its hash."""
        name = trail.hash()
        self._trails.pop(name, None)
        self._trails[name] = trail
        while len(self._trails) > TRAILS_KEPT:
            self._trails.popitem(last=False)
        return name

    def open(self, trail: bytes, index: int) -> bytes:
        """The opening of one stretch. Raises TrainingError for a trail or a stretch that is not there."""
        found = self._trails.get(trail)
        if found is None:
            raise TrainingError(f"the trail {trail.hex()[:16]}… is not, or no longer, remembered here")
        with self._borrowed():
            return open_stretch(self._loop, found, index).to_bytes()

    def check(self, claim: Claim, members: tuple[bytes, ...] | None, data: bytes, seed: bytes | None = None) -> Verdict:
        """Judge an opening; one that is not of the trail on the card is UNOPENED. See `redo.judge`.

        seed: by which pieces of the end may be drawn; who is checked would choose those that are honest.
        """
        try:
            opening = Opening.from_bytes(data, self.shape)
            require_committed(claim, opening, self.shape)
            if isinstance(opening.end, DrawnEnd) and opening.end.seed != seed:
                raise MalformedMessage("pieces of the end that nobody has asked for")
        except MalformedMessage as error:
            return Verdict(Finding.UNOPENED, 0, f"what was opened is not what the card commits to: {error.message}")
        with self._borrowed():
            return judge(self._loop, self._recipe, claim, opening, members)

    @contextmanager
    def _borrowed(self) -> Iterator[None]:
        """The network for a while; its parameters are anywhere afterwards."""
        memory = self._loop.save()
        try:
            yield
        finally:
            self._loop.restore(memory)
