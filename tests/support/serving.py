"""A small community as the node of one of its members sees it when it decides on a slice."""

from __future__ import annotations

from dataclasses import replace

from ubcp_p2p.allocator.problem import Ask, Problem
from ubcp_p2p.ledger.activity import Activity
from ubcp_p2p.ledger.author import Author
from ubcp_p2p.ledger.entry import URGENCY_MIN, ZERO, Decision, Request
from ubcp_p2p.ledger.wire import Signed
from ubcp_p2p.ledger.world import World
from ubcp_p2p.peer.serving.problem import Offer, assemble
from ubcp_p2p.units import MICROCREDITS

CREDIT = MICROCREDITS
SLICE = 40


class Scene:
    """Ann and Ben ask; Cid's machine serves."""

    def __init__(self) -> None:
        self.world = World(5)
        self.ann, self.ben, self.cid = (self.world.account(name) for name in ("ann", "ben", "cid"))
        self.ann_pc, self.ben_pc, self.cid_pc = (
            self.world.node(owner, name) for owner, name in ((self.ann, "ann"), (self.ben, "ben"), (self.cid, "cid"))
        )
        self.offer = Offer(self.cid_pc.public, 1000 * CREDIT, 1000 * CREDIT)

    def asks(
        self, author: Author, paymaster: Author, *, units: int = 100 * CREDIT, at: int = 0,
        peers: tuple[int, int] = (1, 2), deadline: int = 200, purpose: str = "education", run: str = "",
    ) -> Signed:  # fmt: skip
        self.world.now = at
        body = Request(
            run or f"run of {author.public.hex()[:4]}", bytes(32), purpose, *peers, units, 1000 * CREDIT, deadline,
            deadline, URGENCY_MIN, paymaster.public, (), (),
        )  # fmt: skip
        return self.world.write(author, body)

    def decides(self, node: Author, slice_: int, *accepted: Signed) -> None:
        self.world.now = slice_
        ids = tuple(sorted(signed.entry.id for signed in accepted))
        self.world.write(node, Decision(slice_, 500 * CREDIT, 1, ids, (), ZERO))

    def problem(self, slice_: int = SLICE, **changes: object) -> Problem:
        activity = Activity()
        for signed in self.world.entries:
            activity.add(signed.entry)
        return assemble(self.world.ledger, activity, slice_, replace(self.offer, **changes))  # type: ignore[arg-type]

    def ask_of(self, signed: Signed, slice_: int = SLICE, **changes: object) -> Ask | None:
        return next((ask for ask in self.problem(slice_, **changes).asks if ask.id == signed.entry.id), None)
