"""What a vector file is made of: entries and charters by name, vectors that list names (ledger/vectors/README.md)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from tests.vectors.ledger.scene import Scene
from ubcp_p2p.ledger.balances import Balance, balances_root
from ubcp_p2p.ledger.entry import ZERO
from ubcp_p2p.ledger.merkle import root_of
from ubcp_p2p.ledger.wire import ForkProof, Signed

FORMAT = "ubcp-ledger-vectors/1"
Finding = tuple[str, Signed, str]


class Vectors:
    """One file. Entries are named by the first 16 hexadecimal digits of their ids, charters likewise."""

    def __init__(self, subject: str) -> None:
        self.subject = subject
        self._charters: dict[str, str] = {}
        self._entries: dict[str, str] = {}
        self._vectors: list[dict[str, Any]] = []

    def document(self) -> dict[str, Any]:
        shared = {"charters": self._charters, "entries": self._entries} if self._charters else {}
        return {"format": FORMAT, "subject": self.subject, **shared, "vectors": self._vectors}

    def add(self, name: str, shows: str, section: str, **fields: Any) -> None:
        """One vector; its name is unique in the file."""
        assert all(vector["name"] != name for vector in self._vectors), name
        self._vectors.append({"name": name, "shows": shows, "section": section, **fields})

    def entry(
        self,
        section: str,
        name: str,
        shows: str,
        scene: Scene,
        signed: Signed,
        expected: str = "ok",
        *,
        also: Iterable[Signed] = (),
    ) -> None:
        """May `signed` follow its past in `scene`, and `also`? expected: ok, pending, or the code of the refusal."""
        past = {other.entry.id for one in (signed, *also) for other in (*scene.past(one), one)} - {signed.entry.id}
        before = [other for other in scene.entries if other.entry.id in past]
        self.add(
            name, shows, section, charters=self._charters_of(scene), before=self._names_of(before),
            entry=signed.to_bytes().hex(), expected=expected,
        )  # fmt: skip

    def state(
        self,
        section: str,
        name: str,
        shows: str,
        scene: Scene,
        rows: Mapping[str, tuple[int, int, int, int]],
        *,
        proofs: Iterable[tuple[ForkProof | bytes, str]] = (),
        frozen: Iterable[bytes] = (),
        findings: Iterable[Finding] = (),
        entries: Iterable[Signed] | None = None,
        as_of: int | None = None,
    ) -> None:
        """What all entries of `scene` lead to. rows: by name: available, reserved, uncollected, debt.

        findings: but for debts, which follow from the rows.
        """
        entries = list(scene.entries if entries is None else entries)
        table = sorted(Balance(scene.names[name].public, *row) for name, row in rows.items())
        self.add(
            name, shows, section, charters=self._charters_of(scene), entries=self._names_of(entries),
            proofs=[
                {"bytes": (proof if isinstance(proof, bytes) else proof.to_bytes()).hex(), "expected": expected}
                for proof, expected in proofs
            ],
            as_of=max((s.entry.slice for s in entries), default=0) if as_of is None else as_of,
            rows=[[row.account.hex(), *row[1:]] for row in table],
            frozen=sorted(author.hex() for author in frozen),
            findings=sorted(
                [[code, signed.entry.id.hex(), who] for code, signed, who in findings]
                + [["debt", ZERO.hex(), row.account.hex()] for row in table if row.debt]
            ),
            entries_root=root_of(sorted(s.entry.id for s in entries)).hex(), balances_root=balances_root(table).hex(),
        )  # fmt: skip

    def stats(self, name: str, shows: str, scene: Scene, periods: tuple[int, int], figures: dict[str, Any]) -> None:
        """What all entries of `scene` say of these periods, both included."""
        self.add(
            name, shows, "14", charters=self._charters_of(scene), entries=self._names_of(scene.entries),
            periods=list(periods), figures=figures,
        )  # fmt: skip

    def question(self, name: str, shows: str, scene: Scene, question: bytes, answer: bytes | None) -> None:
        """What a ledger with all entries of `scene` answers; None: nothing, for the question is malformed."""
        self.add(
            name, shows, "11", charters=self._charters_of(scene), entries=self._names_of(scene.entries),
            question=question.hex(), answer=answer.hex() if answer is not None else "",
            expected="ok" if answer is not None else "malformed",
        )  # fmt: skip

    def _charters_of(self, scene: Scene) -> list[str]:
        names = []
        for version in scene.charters.versions:
            names.append(version.charter.id.hex()[:16])
            self._charters[names[-1]] = version.to_bytes().hex()
        return names

    def _names_of(self, entries: Iterable[Signed]) -> list[str]:
        names = []
        for signed in entries:
            names.append(signed.entry.id.hex()[:16])
            self._entries[names[-1]] = signed.to_bytes().hex()
        return names


def forked(one: Signed, other: Signed) -> Finding:
    """The finding names the entry with the greater id."""
    return "fork", max(one, other, key=lambda signed: signed.entry.id), one.entry.author.hex()
