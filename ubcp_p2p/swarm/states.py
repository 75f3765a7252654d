"""Serves and downloads the state of a run: certificates first, then bytes that must match the certified hash.

Who is not let in hears why, from here first: also whether it may train, before it does so for nothing.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Callable, Iterable

from ubcp_p2p.buffers import SharedBuffer
from ubcp_p2p.codec import MalformedMessage, fields, hash_of, number
from ubcp_p2p.errors import NetworkError
from ubcp_p2p.swarm.addresses import short
from ubcp_p2p.swarm.admission import (
    OPEN,
    PAUSE_S_MAX,
    Admission,
    NotAdmitted,
    Refusals,
    refusal,
    unless_refused,
    words_of,
)
from ubcp_p2p.swarm.exchange import LINK_BYTES_PER_S_MIN
from ubcp_p2p.swarm.frames import DeadlineExceeded, Stream, Unreachable
from ubcp_p2p.swarm.network import Network
from ubcp_p2p.swarm.quorum import CERTIFICATE_BYTES_MAX, Certificate, Standing

log = logging.getLogger(__name__)

CERTIFICATE, STATE, COPY, MAY_TRAIN = 0, 1, 2, 3
# COPY: the same bytes as STATE, for who keeps them and does not join: no guest to wait for
STATE_DOMAIN = b"ubcp/state/1\0"
ASK_S = 2.0
MUTE_S, MUTE_S_MAX = 1.0, 64.0
MUTE_PEERS_MAX = 1024
DOWNLOADS_AT_ONCE = 4
GUESTS_MAX = 64
SERVE_S = 10.0


class States:
    """State server and client of one run. `publish` says what we stand on; `refusals` has who refuses us."""

    def __init__(
        self,
        network: Network,
        run_id: bytes,
        state_bytes: int,
        rounds: int,
        peers_max: int,
        admission: Admission = OPEN,
    ) -> None:
        self._network = network
        self._run_id = run_id
        self._protocol = f"/ubcp/state/2/{run_id.hex()[:32]}"
        self._state_bytes = state_bytes
        self._rounds = rounds
        self._peers_max = peers_max
        self._admission = admission
        self.refusals = Refusals()
        self._standing: Standing | None = None
        self._state: SharedBuffer | None = None
        self._gate = asyncio.Semaphore(DOWNLOADS_AT_ONCE)
        self.guests: dict[bytes, tuple[bytes, float]] = {}  # who took which state from here last, and when (monotonic)
        self._mute: dict[bytes, tuple[float, float]] = {}  # peer → not to be asked before, length of the pause

    async def open(self) -> None:
        await self._network.handle(self._protocol, self._serve)

    async def close(self) -> None:
        await self._network.unhandle(self._protocol)

    def publish(self, state: SharedBuffer, state_hash: bytes, certificate: Certificate | None) -> None:
        """Serve `state` from now on; the buffer stays the caller's."""
        self._state, self._standing = state, Standing(state_hash, certificate)

    async def standings(self, peers: Iterable[bytes]) -> dict[bytes, Standing]:
        """What each of `peers` stands on, verified; peers that do not answer or answer nonsense are left out.

        Those are not asked again for a while that doubles each time, so that one mute peer cannot slow every round.
        """

        async def ask(peer: bytes) -> tuple[bytes, Standing] | None:
            if time.monotonic() < self._mute.get(peer, (0.0, 0.0))[0]:
                return None
            try:
                answer = await self._network.request(peer, self._protocol, [CERTIFICATE, b"\0" * 32], timeout_s=ASK_S)
                state_hash, certificate = fields(unless_refused(answer), 2)
                if not isinstance(certificate, bytes) or len(certificate) > CERTIFICATE_BYTES_MAX:
                    raise MalformedMessage("no certificate where one belongs")
                parsed = self._parsed(certificate) if certificate else None
                if parsed is not None and parsed.state_hash != state_hash:
                    raise MalformedMessage("a certificate for another state")
                standing = Standing(hash_of(state_hash), parsed)
                self._mute.pop(peer, None)
                return peer, standing
            except NotAdmitted as error:
                self.refusals.note(peer, error.message, time.monotonic())
                self._silence(peer, PAUSE_S_MAX)
                return None
            except (NetworkError, MalformedMessage) as error:
                log.info("no standing from %s: %s", short(peer), error)
                if not isinstance(error, Unreachable):  # that one costs no time, and dialling may work the next moment
                    self._silence(peer)
                return None

        answers = await asyncio.gather(*(ask(peer) for peer in peers))
        return dict(answer for answer in answers if answer is not None)

    async def ask_in(self, peers: Iterable[bytes]) -> None:
        """Ask each of `peers` whether this one may train with it, and note the answers in `refusals`.

        Who gives no answer has not refused.
        """

        async def ask(peer: bytes) -> None:
            try:
                answer = await self._network.request(peer, self._protocol, [MAY_TRAIN, b"\0" * 32], timeout_s=ASK_S)
                words = words_of(answer)
            except (NetworkError, MalformedMessage) as error:
                log.info("%s does not say whether this peer may train: %s", short(peer), error)
                words = ""
            if words:
                self.refusals.note(peer, words, time.monotonic())
            else:
                self.refusals.lift(peer)

        await asyncio.gather(*(ask(peer) for peer in peers))

    def _parsed(self, data: bytes) -> Certificate:
        """A certificate that this run can have. Raises MalformedMessage."""
        certificate = Certificate.from_bytes(data, self._run_id, members_max=self._peers_max)
        if certificate.round > self._rounds:
            raise MalformedMessage(f"a certificate for round {certificate.round} of {self._rounds}")
        return certificate

    def _silence(self, peer: bytes, longest_s: float = MUTE_S_MAX) -> None:
        if len(self._mute) >= MUTE_PEERS_MAX:
            self._mute.clear()
        _, pause_s = self._mute.get(peer, (0.0, MUTE_S / 2))
        pause_s = min(2 * pause_s, longest_s)
        self._mute[peer] = time.monotonic() + pause_s, pause_s

    async def download(
        self,
        peer: bytes,
        round_: int,
        state_hash: bytes,
        *,
        stall_s: float,
        total_s: float,
        what: int = STATE,
        on_bytes: Callable[[int], None] = lambda _: None,
    ) -> SharedBuffer:
        """The state with this hash from `peer`, checked, within `total_s` and never silent for `stall_s` seconds.

        what: STATE or COPY. on_bytes: hears how many more have arrived.
        Raises MalformedMessage, NotAdmitted, Unreachable or DeadlineExceeded.
        """
        try:
            async with asyncio.timeout(total_s):
                return await self._download(peer, round_, state_hash, stall_s, what, on_bytes)
        except TimeoutError:
            raise DeadlineExceeded(f"the state did not arrive within {total_s:.0f} s") from None

    async def _download(
        self, peer: bytes, round_: int, state_hash: bytes, stall_s: float, what: int, on_bytes: Callable[[int], None]
    ) -> SharedBuffer:
        buffer = SharedBuffer.create(self._state_bytes)
        try:
            async with self._network.open(peer, self._protocol, timeout_s=stall_s) as stream:
                await stream.send([what, state_hash], timeout_s=stall_s)
                (size,) = fields(unless_refused(await stream.receive(timeout_s=stall_s)), 1)
                if number(size) == 0:
                    raise Unreachable("it does not have this state any more")
                if size != self._state_bytes:
                    raise MalformedMessage(f"a state of {number(size)} bytes where the model has {self._state_bytes}")
                hasher = hashlib.sha256(STATE_DOMAIN + self._run_id + round_.to_bytes(8, "big"))

                def arrived(data: memoryview | bytes) -> None:
                    hasher.update(data)
                    on_bytes(len(data))

                with buffer.view as view:
                    await stream.receive_block(view, stall_s=stall_s, on_data=arrived)
            if hasher.digest() != state_hash:
                raise MalformedMessage("the downloaded state does not match the hash that its group signed")
        except BaseException:
            buffer.close()
            raise
        return buffer

    async def _serve(self, stream: Stream) -> None:
        what, wanted = fields(await stream.receive(timeout_s=5.0), 2)
        if what == MAY_TRAIN:
            await stream.send(refusal(self._admission.to_group(stream.peer)), timeout_s=5.0)
            return
        if why := self._admission.to_state(stream.peer):
            log.info("%s gets no state: %s", short(stream.peer), why)
            await stream.send(refusal(why), timeout_s=5.0)
            return
        standing, state = self._standing, self._state
        if standing is None or state is None:
            raise Unreachable("nothing is published yet")  # hang up at once: the requester need not wait for us
        if what == CERTIFICATE:
            certificate = standing.certificate.to_bytes() if standing.certificate is not None else b""
            await stream.send([standing.state_hash, certificate], timeout_s=5.0)
        # fd < 0: a commit is under way
        elif what in (STATE, COPY) and hash_of(wanted) == standing.state_hash and state.fd >= 0:
            # A slow reader may not hold a place for ever.
            serve_s = SERVE_S + self._state_bytes / LINK_BYTES_PER_S_MIN
            async with self._gate:
                try:
                    async with asyncio.timeout(serve_s):
                        await self._send_state(stream, state, joins=what == STATE)
                except TimeoutError:
                    raise DeadlineExceeded(f"the state was not read within {serve_s:.0f} s") from None
        else:
            await stream.send([0], timeout_s=5.0)

    async def _send_state(self, stream: Stream, state: SharedBuffer, *, joins: bool) -> None:
        if state.fd < 0:  # replaced while the requester waited at the gate
            await stream.send([0], timeout_s=5.0)
            return
        taken = self._standing
        with state.view as view:
            await stream.send([len(view)], timeout_s=5.0)
            await stream.send_block(view, stall_s=10.0)
        if taken is not None and joins:
            self.guests.pop(stream.peer, None)
            self.guests[stream.peer] = (taken.state_hash, time.monotonic())
            while len(self.guests) > GUESTS_MAX:
                del self.guests[next(iter(self.guests))]
