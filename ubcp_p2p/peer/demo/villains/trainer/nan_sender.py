"""A sender of NaN: one such number in an average, and the model of everybody is lost."""

from __future__ import annotations

from ubcp_p2p.buffers import SharedBuffer
from ubcp_p2p.peer.demo.villains.trainer.idle import IdleSession, serve
from ubcp_p2p.training.inner import AfterStep
from ubcp_p2p.training.messages import Offered
from ubcp_p2p.training.state import offer_hash, vector


class NanSender(IdleSession):
    """The offer is what its card says: the hash is of the NaNs."""

    def train(
        self, seq: int, round: int, members: tuple[bytes, ...], after_step: AfterStep
    ) -> tuple[Offered, SharedBuffer]:
        message, offer = super().train(seq, round, members, after_step)
        vector(offer).fill(float("nan"))
        return message.model_copy(update={"digest": offer_hash(offer.view)}), offer


if __name__ == "__main__":
    serve(NanSender)
