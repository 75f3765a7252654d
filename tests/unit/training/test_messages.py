"""The channel's messages: round trips, limits, and hostile bytes."""

from __future__ import annotations

import json
import os
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from ubcp_p2p.training import channel, messages
from ubcp_p2p.training.errors import MalformedTrainerMessage
from ubcp_p2p.training.limits import MEMBERS_MAX, MESSAGE_BYTES_MAX, OFFERS_MAX


@given(
    st.integers(1, 2**53 - 1),
    st.integers(0, 2**53 - 1),
    st.lists(st.binary(max_size=64), max_size=MEMBERS_MAX).map(tuple),
)
def test_commands_survive_the_trip(seq: int, round: int, members: tuple[bytes, ...]) -> None:
    command = messages.Train(seq=seq, round=round, members=members)
    assert messages.decode_command(messages.encode(command)) == command


@pytest.mark.parametrize("permille", [-1, 0, 1, 1000, 1001, 1.5])
def test_a_share_is_of_a_thousand(permille: float) -> None:
    data = json.dumps({"type": "pace", "permille": permille}).encode()
    if permille in (1, 1000):
        assert messages.decode_command(data) == messages.Pace(permille=int(permille))
    else:
        with pytest.raises(MalformedTrainerMessage, match="permille"):
            messages.decode_command(data)


@given(st.floats(allow_nan=False, allow_infinity=False), st.integers(0, 2**53 - 1))
def test_a_loss_survives_to_the_bit(loss: float, step: int) -> None:
    reply = messages.Progressed(seq=1, round=0, step=step, steps=step, loss=loss)
    assert messages.decode_reply(messages.encode(reply)) == reply


@given(st.binary(max_size=400))
def test_noise_is_refused(data: bytes) -> None:
    for decode in (messages.decode_start, messages.decode_command, messages.decode_reply):
        with pytest.raises(MalformedTrainerMessage):
            decode(data)


@pytest.mark.parametrize(
    "change",
    [
        {"seq": 0},
        {"seq": True},
        {"seq": "1"},
        {"round": -1},
        {"round": 2**53},
        {"round": 1.5},
        {"members": ["zz"]},
        {"members": ["00" * 65]},
        {"members": ["00"] * (MEMBERS_MAX + 1)},
        {"members": None},
        {"type": "start"},
        {"type": "nothing"},
        {"more": 1},
    ],
)
def test_each_limit_is_kept(change: dict[str, object]) -> None:
    good: dict[str, object] = {"type": "train", "seq": 1, "round": 0, "members": ["00"]}
    messages.decode_command(json.dumps(good).encode())
    with pytest.raises(MalformedTrainerMessage, match="not a message of ours"):
        messages.decode_command(json.dumps(good | change).encode())


def test_a_loss_that_is_no_number_is_refused() -> None:
    with pytest.raises(ValidationError):
        messages.Progressed(seq=1, round=0, step=1, steps=1, loss=float("nan"))
    with pytest.raises(MalformedTrainerMessage):
        messages.decode_reply(b'{"type":"progress","seq":1,"round":0,"step":1,"steps":1,"loss":NaN}')


def test_too_long_or_not_unicode_is_refused_before_it_is_sent() -> None:
    crowd = tuple(bytes(64) for _ in range(MEMBERS_MAX))
    assert len(messages.encode(messages.Train(seq=1, round=0, members=crowd))) < MESSAGE_BYTES_MAX
    escaped = {str(i): "\0" * 2000 for i in range(16)}  # within the fields' limits, but six times as long as JSON
    with pytest.raises(MalformedTrainerMessage, match="fit"):
        messages.encode(messages.Checkpoint(seq=1, extra=escaped))
    with pytest.raises(MalformedTrainerMessage, match="Unicode"):
        messages.encode(messages.Sample.model_construct(seq=1, prompt="\ud800", length=1, seed=0, temperature=1.0))
    with pytest.raises(MalformedTrainerMessage, match="fit"):
        messages.decode_reply(b" " * (MESSAGE_BYTES_MAX + 1))


def test_descriptors_travel_and_close() -> None:
    before = len(os.listdir("/proc/self/fd"))
    ours, theirs = channel.pair()
    with ours, theirs:
        read, write = os.pipe()
        channel.send(ours, b"hello", [read] * OFFERS_MAX)
        got = channel.receive(theirs)
        assert got is not None
        data, fds = got
        assert data == b"hello"
        assert len(fds) == OFFERS_MAX
        assert not any(os.get_inheritable(fd) for fd in fds)
        os.write(write, b"x")
        assert os.read(fds[7], 1) == b"x"
        channel.close_all(fds)
        # over the limits: nothing of it is kept open
        channel.send(ours, b"x" * (MESSAGE_BYTES_MAX + 1), [read])
        with pytest.raises(MalformedTrainerMessage):
            channel.receive(theirs)
        channel.send(ours, b"x", [read] * (OFFERS_MAX + 2))
        with pytest.raises(MalformedTrainerMessage):
            channel.receive(theirs)
        channel.close_all([read, write])
        theirs.setblocking(False)
        with pytest.raises(BlockingIOError):
            channel.receive(theirs)
        ours.shutdown(socket.SHUT_WR)
        assert channel.receive(theirs) is None
    assert len(os.listdir("/proc/self/fd")) == before
