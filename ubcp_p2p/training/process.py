"""TrainerProcess: what the daemon asks of its trainer. Imports no torch.

Buffers that a call returns are memory shared with the trainer: whoever holds one may read it, and nobody writes to it.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType

from ubcp_p2p.buffers import SharedBuffer
from ubcp_p2p.errors import TrainingError
from ubcp_p2p.models.evaluation import Evaluation
from ubcp_p2p.training import messages
from ubcp_p2p.training.errors import MalformedTrainerMessage, TrainerStopped
from ubcp_p2p.training.link import Link
from ubcp_p2p.training.sandbox.values import Layer
from ubcp_p2p.training.spawn import spawn_worker
from ubcp_p2p.training.values import Candidate, Offer, Progress, Ready, TrainerSpec
from ubcp_p2p.training.verdict import Claim, Finding, Verdict

__all__ = ["Candidate", "Evaluation", "Offer", "Progress", "Ready", "TrainerProcess", "TrainerSpec"]


class TrainerProcess:
    """A running trainer; made by `start`, ended by `stop`.

    One command runs at a time; a call made meanwhile waits its turn. Each may be cancelled: the trainer stays usable.
    All raise TrainerCrashed when the process dies, TrainerStopped once `stop` was called, OutOfMemory when memory ran
    out but the trainer lives on, and TrainingError for arguments over their limits.
    """

    def __init__(self, link: Link) -> None:
        """For `start` alone."""
        self._link = link
        self._state: SharedBuffer | None = None
        self._candidate: Candidate | None = None
        self._round, self._hash = 0, b""
        self.ready: Ready

    @classmethod
    async def start(cls, spec: TrainerSpec, *, resume: bool) -> TrainerProcess:
        """Start a trainer and wait until it is ready: torch's import and the data take some seconds.

        resume: go on from the newest sound checkpoint in spec.checkpoint_dir, if there is one. Call it on a thread that
        lives as long as the trainer should: the kernel kills the trainer when that thread ends.
        Raises ConfigError (recipe, device, data, a checkpoint of another run, a missing extra), LocalIOError,
        TrainingError, TrainerCrashed. Nothing is left behind then, nor after a cancel.
        """
        trainer = cls(spawn_worker(spec.silent_s))
        try:
            await trainer._link.ask(
                messages.Start,
                {
                    "recipe_toml": spec.recipe_toml,
                    "run_id": spec.run_id,
                    "peer": spec.peer,
                    "device": spec.device,
                    "threads": spec.threads,
                    "checkpoint_dir": os.fsencode(spec.checkpoint_dir.absolute()),
                    "checkpoints_kept": spec.checkpoints_kept,
                    "resume": resume,
                    "sandbox": spec.sandbox.mode,
                    "memory_mb": spec.sandbox.memory_mb,
                    "read_dirs": tuple(os.fsencode(folder.absolute()) for folder in spec.sandbox.read_dirs),
                },
                messages.ReadyMade,
                trainer._on_ready,
            )
        except BaseException:
            await trainer._link.stop(grace_s=0)  # it may be busy with torch's import, and has nothing to save
            await trainer.stop()
            raise
        return trainer

    @property
    def pid(self) -> int:
        """Of the trainer's process."""
        return self._link.pid

    @property
    def exited(self) -> asyncio.Future[str]:
        """Resolves with words ("was killed (signal 9): …") when the process ends unasked; never after `stop`."""
        return self._link.exited

    @property
    def last_output(self) -> str:
        """The last 4 KiB of what the trainer wrote to its standard output and error."""
        return self._link.last_output

    @property
    def state(self) -> SharedBuffer:
        """The committed state. `commit` and `load` close it and put another in its place; it outlives a crash."""
        if self._state is None:
            raise TrainerStopped("the trainer was stopped; it holds no state")
        return self._state

    @property
    def round(self) -> int:
        """The round that the committed state is the start of."""
        return self._round

    @property
    def state_hash(self) -> bytes:
        """The committed state's hash, 32 bytes."""
        return self._hash

    async def train(self, round: int, members: Sequence[bytes], on_progress: Callable[[Progress], None]) -> Offer:
        """Take the round's local steps from the committed state; the offer's buffer is the caller's.

        on_progress is called from the loop, a few times a second at most and at the last step. Raises TrainingError (it
        is not that round here, no data), Diverged. A cancel stops the trainer after its present step. As after an
        error, the round can then be trained again, with the same result as if this had not been.
        """

        def accept(reply: messages.Offered, buffer: SharedBuffer | None) -> Offer:
            sized = _sized(buffer, self.ready.offer_bytes)
            return Offer(reply.round, reply.weight, reply.loss, reply.seconds, reply.digest, reply.trail, sized)

        return await self._link.ask(
            messages.Train,
            {"round": round, "members": tuple(members)},
            messages.Offered,
            accept,
            on_progress=lambda seen: on_progress(Progress(seen.round, seen.step, seen.steps, seen.loss)),
            drop=lambda offer: offer.buffer.close(),
        )

    def finish_early(self) -> None:
        """End a running `train` after its current step, with what is done by then; otherwise do nothing."""
        self._link.finish()

    def pace(self, permille: int) -> None:
        """Use this share (1 to 1000) of the device's sustained speed from the next step on."""
        self._link.tell(messages.Pace(permille=permille))

    async def apply(self, offers: Sequence[tuple[SharedBuffer, int]]) -> Candidate:
        """Take the outer step on a copy of the state: (offer, weight ≥ 1) in the order that all members agreed on.

        The buffers stay the caller's. A former candidate is closed, also on failure. Raises TrainingError for a wrong
        size, RoundFailed when no offer is usable, Diverged when the new state would not be finite.
        """

        def accept(reply: messages.CandidateMade, buffer: SharedBuffer | None) -> Candidate:
            sized = _sized(buffer, self.ready.state_bytes)
            self._candidate = Candidate(reply.round, reply.state_hash, reply.rejected, sized)
            return self._candidate

        return await self._link.ask(
            messages.Apply,
            {"weights": tuple(weight for _, weight in offers)},
            messages.CandidateMade,
            accept,
            fds=[buffer.fd for buffer, _ in offers],
            before=self._drop_candidate,
        )

    async def commit(self) -> None:
        """The candidate becomes the state. Raises TrainingError when there is none."""

        def accept(reply: messages.Done, buffer: SharedBuffer | None) -> None:
            if self._candidate is None:
                raise MalformedTrainerMessage("a commit of a candidate that is not there")
            candidate, self._candidate = self._candidate, None
            self._adopt(candidate.round, candidate.state_hash, candidate.buffer)

        await self._link.ask(messages.Commit, {}, messages.Done, accept)

    async def discard(self) -> None:
        """Forget the candidate, if there is one."""
        await self._link.ask(
            messages.Discard, {}, messages.Done, lambda reply, buffer: None, before=self._drop_candidate
        )

    async def load(self, round: int, buffer: SharedBuffer, expected_hash: bytes) -> bytes:
        """Adopt a copy of a downloaded state as the start of `round`; returns its hash. The buffer stays the caller's.

        Raises StateMismatch when it has another length or hash, or non-finite values; the old state stays then.
        """

        def accept(reply: messages.Loaded, copy: SharedBuffer | None) -> bytes:
            self._adopt(round, reply.state_hash, _sized(copy, self.ready.state_bytes))
            self._drop_candidate()
            return reply.state_hash

        return await self._link.ask(
            messages.Load,
            {"round": round, "expected_hash": expected_hash},
            messages.Loaded,
            accept,
            fds=[buffer.fd],
        )

    async def open(self, trail: bytes, stretch: int) -> bytes:
        """One stretch of a trail that an offer of the last two rounds committed to, as an opening's bytes.

        Raises TrainingError for a trail or a stretch that is not there.
        """

        def accept(reply: messages.Opened, buffer: SharedBuffer | None) -> bytes:
            assert buffer is not None  # the link has seen to it
            with buffer:
                return bytes(buffer.view)

        return await self._link.ask(messages.Open, {"trail": trail, "stretch": stretch}, messages.Opened, accept)

    async def check(
        self, claim: Claim, members: Sequence[bytes] | None, opening: bytes, seed: bytes | None = None
    ) -> Verdict:
        """Walk an opened stretch of another's trail again and compare (redo.judge). The claim's run must be this one.

        members: whom the data is cut among, by the certificate of the claim's base; None before the first one. seed: by
        which the asker has had pieces of the end drawn; None: such an opening is UNOPENED.
        """
        fields = claim._asdict()
        del fields["run_id"]
        with SharedBuffer.create(len(opening)) as buffer:
            with buffer.view as view:
                view[:] = opening
            return await self._link.ask(
                messages.Check,
                {**fields, "members": None if members is None else tuple(members), "seed": seed},
                messages.Checked,
                lambda reply, none: Verdict(Finding(reply.finding), reply.distance_ppm, reply.words, reply.allowed_ppm),
                fds=[buffer.fd],
            )

    async def evaluate(self) -> Evaluation:
        """Measure the committed state on the recipe's held-out data."""
        return await self._link.ask(
            messages.Evaluate,
            {},
            messages.Evaluated,
            lambda reply, buffer: Evaluation(reply.loss, reply.accuracy, reply.stderr, reply.n),
        )

    async def sample(self, prompt: str, length: int, seed: int, temperature: float = 0.8) -> str:
        """`length` bytes of text after `prompt` from the committed state. Raises TrainingError if it writes none."""
        text = await self._link.ask(
            messages.Sample,
            {"prompt": prompt, "length": length, "seed": seed, "temperature": temperature},
            messages.Sampled,
            lambda reply, buffer: reply.text,
        )
        if text is None:
            raise TrainingError("this run's model writes no text", hint="ask a language model")
        return text

    async def checkpoint(self, extra: Mapping[str, str]) -> Path:
        """Write state, inner optimizer and `extra` strings to disk, atomically; keep the last K. Returns the path.

        Raises LocalIOError when the disk refuses (the older ones are intact), ConfigError for extra that does not fit.
        """
        return await self._link.ask(
            messages.Checkpoint,
            {"extra": dict(extra)},
            messages.Saved,
            lambda reply, buffer: Path(os.fsdecode(reply.path)),
        )

    async def stop(self) -> None:
        """End the trainer within 2 s and close its buffers; a checkpoint under way has 1 s. Safe to call again."""
        try:
            await self._link.stop()
        finally:
            self._drop_candidate()
            if self._state is not None:
                self._state.close()
                self._state = None

    async def __aenter__(self) -> TrainerProcess:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    def _on_ready(self, reply: messages.ReadyMade, buffer: SharedBuffer | None) -> None:
        self.ready = Ready(
            round=reply.round,
            state_hash=reply.state_hash,
            parameters=reply.parameters,
            state_bytes=reply.state_bytes,
            offer_bytes=reply.offer_bytes,
            device=reply.device,
            resumed_from=os.fsdecode(reply.resumed_from) if reply.resumed_from is not None else None,
            extra=reply.extra,
            notes=reply.notes,
            data_name=reply.data_name,
            data_sha256=reply.data_sha256,
            sandbox=tuple(Layer(made.name, made.active, made.words, made.remedy) for made in reply.sandbox),
        )
        self._adopt(reply.round, reply.state_hash, _sized(buffer, reply.state_bytes))

    def _adopt(self, round: int, digest: bytes, buffer: SharedBuffer) -> None:
        if self._state is not None:
            self._state.close()
        self._state, self._round, self._hash = buffer, round, digest

    def _drop_candidate(self) -> None:
        if self._candidate is not None:
            self._candidate.buffer.close()
            self._candidate = None


def _sized(buffer: SharedBuffer | None, size: int) -> SharedBuffer:
    if buffer is None or buffer.size != size:
        raise MalformedTrainerMessage(f"a buffer of {buffer.size if buffer else 0} bytes, not {size}")
    return buffer
