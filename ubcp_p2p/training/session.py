"""A run inside the trainer process: the committed state, the candidate, and what each command does to them.

The committed state changes by `commit` and `load` alone. Local training is a transaction: one that is cancelled, fails,
or is not committed leaves no trace in the inner optimizer, so that the round can be taken again with the same result.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from ubcp_p2p.buffers import SharedBuffer
from ubcp_p2p.errors import TrainingError
from ubcp_p2p.models.evaluation import Evaluation
from ubcp_p2p.models.recipe import Recipe
from ubcp_p2p.models.task import build_task
from ubcp_p2p.training import channel, inner
from ubcp_p2p.training.checkpoint import Checkpoint, newest, write
from ubcp_p2p.training.errors import StateMismatch
from ubcp_p2p.training.limits import NOTES_MAX
from ubcp_p2p.training.messages import CandidateMade, Check, Checked, Loaded, Offered, Open, Opened, ReadyMade, Start
from ubcp_p2p.training.outer import OuterRule, outer_step
from ubcp_p2p.training.state import ITEM_BYTES, Vector, is_finite, offer_hash, state_hash, vector
from ubcp_p2p.training.verdict import Claim
from ubcp_p2p.training.witness import Witness


@dataclass(frozen=True)
class _State:
    """A whole state with its name; the buffer is owned."""

    round: int
    digest: bytes
    buffer: SharedBuffer


class Session:
    """One run, from its recipe to its checkpoints. Not safe for threads: the trainer has one."""

    def __init__(self, start: Start) -> None:
        """Load the data, build the network, resume if asked. Raises ConfigError, LocalIOError, TrainingError."""
        recipe = Recipe.from_toml(start.recipe_toml, "the run's recipe")
        inner.set_up_torch(start.threads)
        device = inner.choose_device(start.device)
        task = build_task(recipe)
        self._run_id, self._recipe_hash, self._peer = start.run_id, recipe.hash(), start.peer
        self._inner = inner.InnerLoop(recipe, task, device)
        self._witness = Witness(recipe, self._inner)
        self._rule = OuterRule(recipe.outer.optimizer, recipe.outer.lr, recipe.outer.momentum)
        self._folder, self._kept = Path(os.fsdecode(start.checkpoint_dir)), start.checkpoints_kept
        self._values = self._rule.state_values(self._inner.parameters)
        self._candidate: _State | None = None
        # The inner optimizer as it was at the committed state, while local training has moved the live one on.
        self._before: inner.InnerState | None = None
        self._model_is_committed = True

        buffer = SharedBuffer.create(self._values * ITEM_BYTES)
        path, found, facts = self._newest() if start.resume else (None, None, ())
        if found is not None:
            vector(buffer)[:] = found.state
            self._inner.restore(inner.InnerState(found.inner_steps, dict(found.inner_vectors)))
            self._model_is_committed = False
            self._state = _State(found.round, found.state_hash, buffer)
        else:
            vector(buffer)[: self._inner.parameters] = self._inner.read()
            self._state = _State(0, state_hash(self._run_id, 0, buffer.view), buffer)
        self.ready = ReadyMade(
            seq=start.seq,
            round=self._state.round,
            state_hash=self._state.digest,
            parameters=self._inner.parameters,
            state_bytes=buffer.size,
            offer_bytes=self._inner.parameters * ITEM_BYTES,
            device=inner.describe(device),
            resumed_from=os.fsencode(path) if path else None,
            extra=dict(found.extra) if found else {},
            notes=tuple(note[:400] for note in (*facts, *task.notes)[:NOTES_MAX]),
            data_name=task.data_name,
            data_sha256=task.data_sha256,
        )

    @property
    def state(self) -> SharedBuffer:
        """The committed state's buffer, which stays the session's."""
        return self._state.buffer

    def train(
        self, seq: int, round: int, members: tuple[bytes, ...], after_step: inner.AfterStep
    ) -> tuple[Offered, SharedBuffer]:
        """Take the local steps of `round` from the committed state; the offer's buffer is the caller's.

        after_step: see InnerLoop.run. Raises TrainingError, Diverged, and what `after_step` raises.
        """
        if round != self._state.round:
            raise TrainingError(
                f"asked to train round {round}, but the trainer's state is the start of round {self._state.round}",
                hint="load that round's state from a peer",
            )
        began = time.monotonic()
        self._rewind()
        self._before = self._inner.save()
        self._model_is_committed = False
        theta = self._parameters()
        try:
            self._inner.write(theta)
            recorder = self._witness.recorder()

            def recorded(step: int, steps: int, mean_loss: Callable[[], float]) -> bool:
                recorder.after_step(step)
                return after_step(step, steps, mean_loss)

            result = self._inner.run(self._run_id, round, self._peer, members, recorded)
            offer = SharedBuffer.create(self._inner.parameters * ITEM_BYTES)
        except BaseException:
            self._rewind()
            raise
        delta = vector(offer)
        delta[:] = theta
        delta -= self._inner.read()
        digest = offer_hash(offer.view)
        trail = recorder.finish(
            self._run_id, round, self._peer, members, vector(self._state.buffer), self._state.digest, digest
        )
        message = Offered(
            seq=seq,
            round=round,
            weight=result.samples,
            loss=result.loss,
            seconds=time.monotonic() - began,
            digest=digest,
            trail=self._witness.keep(trail),
        )
        return message, offer

    def apply(self, seq: int, fds: Sequence[int], weights: Sequence[int]) -> tuple[CandidateMade, SharedBuffer]:
        """Make the candidate from offers, whose descriptors it closes; the buffer stays the session's.

        Raises TrainingError for a wrong size or count, RoundFailed, Diverged; there is no candidate then.
        """
        self.discard()
        with ExitStack() as stack:
            offers = _adopt_all(fds, stack)
            if len(offers) != len(weights):
                raise TrainingError(f"{len(offers)} offers with {len(weights)} weights")
            for index, offer in enumerate(offers):
                if offer.size != self._inner.parameters * ITEM_BYTES:
                    raise TrainingError(
                        f"offer {index} has {offer.size} bytes; this run's have {self._inner.parameters * ITEM_BYTES}"
                    )
            buffer = SharedBuffer.create(self._state.buffer.size)
            try:
                pairs = [(vector(offer), weight) for offer, weight in zip(offers, weights, strict=True)]
                rejected = outer_step(vector(self._state.buffer), pairs, self._rule, vector(buffer))
                pairs.clear()  # let the views go before their buffers are closed
                round = self._state.round + 1
                self._candidate = _State(round, state_hash(self._run_id, round, buffer.view), buffer)
            except BaseException:
                buffer.close()
                raise
        candidate = self._candidate
        reply = CandidateMade(seq=seq, round=candidate.round, state_hash=candidate.digest, rejected=rejected)
        return reply, candidate.buffer

    def commit(self) -> None:
        """The candidate becomes the state. Raises TrainingError when there is none."""
        if self._candidate is None:
            raise TrainingError("there is no candidate to commit", hint="apply the round's offers first")
        self._adopt(self._candidate)
        self._candidate = None

    def discard(self) -> None:
        """Forget the candidate, if there is one."""
        if self._candidate is not None:
            self._candidate.buffer.close()
            self._candidate = None

    def load(self, seq: int, fd: int, round: int, expected_hash: bytes) -> tuple[Loaded, SharedBuffer]:
        """Adopt a copy of the state behind `fd`, which it closes. Raises StateMismatch; the old state stays then."""
        with ExitStack() as stack:
            (source,) = _adopt_all([fd], stack)
            if source.size != self._state.buffer.size:
                raise StateMismatch(f"a state of {source.size} bytes; this run's have {self._state.buffer.size}")
            buffer = SharedBuffer.create(source.size)
            try:
                vector(buffer)[:] = vector(source)  # checked as a copy: the source may change under us
                digest = state_hash(self._run_id, round, buffer.view)
                if digest != expected_hash:
                    raise StateMismatch(
                        f"the state of round {round} has hash {digest.hex()[:16]}…, not {expected_hash.hex()[:16]}…",
                        hint="get it from another peer",
                    )
                if not is_finite(vector(buffer)):
                    raise StateMismatch(f"the state of round {round} holds non-finite values")
            except BaseException:
                buffer.close()
                raise
        self.discard()
        self._adopt(_State(round, digest, buffer))
        return Loaded(seq=seq, state_hash=digest), buffer

    def open(self, command: Open) -> tuple[Opened, SharedBuffer]:
        """Open a stretch of one of the last trails; the buffer, an opening's bytes, is the caller's.

        Raises TrainingError for a trail or stretch that is not there.
        """
        self._model_is_committed = False
        return Opened(seq=command.seq), _filled(self._witness.open(command.trail, command.stretch))

    def check(self, command: Check, fd: int) -> Checked:
        """Judge a stretch of another's trail by the opening behind `fd`, which it closes."""
        with ExitStack() as stack:
            (source,) = _adopt_all([fd], stack)
            if source.size > self._witness.shape.bytes_max():
                raise TrainingError(f"an opening of {source.size} bytes; this run's have fewer")
            data = bytes(source.view)
        claim = Claim(
            self._run_id, command.round, command.peer, command.base_hash, command.steps, command.offer_hash,
            command.trail,
        )  # fmt: skip
        self._model_is_committed = False
        verdict = self._witness.check(claim, command.members, data, command.seed)
        return Checked(
            seq=command.seq, finding=verdict.finding.value, distance_ppm=verdict.distance_ppm, words=verdict.words,
            allowed_ppm=verdict.allowed_ppm,
        )  # fmt: skip

    def evaluate(self) -> Evaluation:
        """Measure the committed state on held-out data."""
        self._commit_model()
        return self._inner.evaluate()

    def sample(self, prompt: str, length: int, seed: int, temperature: float) -> str | None:
        """Text from the committed state, or None when this model writes none."""
        self._commit_model()
        return self._inner.sample(prompt, length, seed, temperature)

    def checkpoint(self, extra: dict[str, str]) -> Path:
        """Write the committed state with the inner optimizer as it was there. Raises LocalIOError, ConfigError."""
        memory = self._before or self._inner.save()
        return write(
            self._folder,
            self._kept,
            Checkpoint(
                run_id=self._run_id,
                recipe_hash=self._recipe_hash,
                round=self._state.round,
                state=vector(self._state.buffer),
                state_hash=self._state.digest,
                inner_steps=memory.steps,
                inner_vectors=memory.vectors,
                extra=extra,
            ),
        )

    def _newest(self) -> tuple[Path | None, Checkpoint | None, tuple[str, ...]]:
        lengths = dict.fromkeys(self._inner.state_vectors, self._inner.parameters)
        return newest(self._folder, self._run_id, self._recipe_hash, self._values, lengths)

    def _parameters(self) -> Vector:
        return vector(self._state.buffer)[: self._inner.parameters]

    def _adopt(self, state: _State) -> None:
        old, self._state = self._state, state
        old.buffer.close()
        self._before = None  # what local training did to the inner optimizer is part of the run now
        self._model_is_committed = False

    def _rewind(self) -> None:
        """Take the inner optimizer back to the committed state."""
        if self._before is not None:
            self._inner.restore(self._before)
            self._before = None

    def _commit_model(self) -> None:
        if not self._model_is_committed:
            self._inner.write(self._parameters())
            self._model_is_committed = True


def _filled(data: bytes) -> SharedBuffer:
    buffer = SharedBuffer.create(len(data))
    with buffer.view as view:
        view[:] = data
    return buffer


def _adopt_all(fds: Sequence[int], stack: ExitStack) -> list[SharedBuffer]:
    """Map received descriptors; `stack` closes all of them, those too that cannot be mapped."""
    left = list(fds)
    stack.callback(channel.close_all, left)
    buffers: list[SharedBuffer] = []
    while left:
        try:
            buffers.append(stack.enter_context(SharedBuffer.adopt(left.pop(0))))
        except (OSError, ValueError) as error:
            if isinstance(error, OSError) and error.errno == errno.ENOMEM:
                raise  # our own lack, not the descriptor's
            raise TrainingError(f"a descriptor that came with a command is no memory to map: {error}") from None
    return buffers
