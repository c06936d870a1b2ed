"""The channel carries messages of the schema and nothing else."""

import socket
import struct
from collections.abc import Iterator

import msgspec
import pytest

from timetrial.engine.messages import Channel, ChannelClosed, Go, Stopped, Verdict


@pytest.fixture
def ends() -> Iterator[tuple[Channel, Channel, socket.socket]]:
    left, right = socket.socketpair()
    with left, right:
        yield Channel(left), Channel(right), left


def test_a_message_arrives_as_it_was_sent(ends: tuple[Channel, Channel, socket.socket]) -> None:
    referee, racer, _ = ends
    go = Go(
        run_ns=10**12,
        last_step=None,
        new_results=[(3, {"train/loss": 0.5})],
        train_state={"a": True, "b": 2.0},
    )
    referee.send(go)
    assert racer.receive() == go
    answer = Stopped(
        global_step=4,
        training_complete=False,
        racer_ns=1,
        breakdown={},
        compile={},
        kernels={"softmax_cross_entropy": ["fused"]},
        scalars=[(1, {"loss": 1.0})],
    )
    racer.send(answer)
    assert referee.receive(1.0) == answer


def test_silence_is_none_and_the_end_is_an_error(ends: tuple[Channel, Channel, socket.socket]) -> None:
    referee, racer, _ = ends
    assert referee.receive(0.01) is None
    racer.close()
    with pytest.raises(ChannelClosed):
        referee.receive(1.0)


@pytest.mark.parametrize(
    "body",
    [
        b"\x80\x04K*.",  # a pickle
        msgspec.msgpack.encode({"type": "NoSuchMessage"}),
        msgspec.msgpack.encode({"type": "Verdict", "metrics": {"a": "text"}, "diverged": None, "read_ns": 0}),
        msgspec.msgpack.encode({"type": "JudgeSnapshot", "path": "x", "extra": 1}),
    ],
)
def test_what_is_no_message_is_refused(ends: tuple[Channel, Channel, socket.socket], body: bytes) -> None:
    referee, _, racer_socket = ends
    del referee
    other = ends[1]
    racer_socket.sendall(struct.pack("!I", len(body)) + body)
    with pytest.raises(msgspec.DecodeError):
        other.receive(1.0)


def test_a_frame_longer_than_any_message_is_not_read(ends: tuple[Channel, Channel, socket.socket]) -> None:
    ends[2].sendall(struct.pack("!I", 2**31))
    with pytest.raises(ChannelClosed, match="longer than any message"):
        ends[1].receive(1.0)


def test_not_a_number_survives_the_channel(ends: tuple[Channel, Channel, socket.socket]) -> None:
    ends[0].send(Verdict(metrics={"validation/loss": float("nan")}, diverged=None, read_ns=0, judge_ns=0))
    verdict = ends[1].receive(1.0)
    assert (
        isinstance(verdict, Verdict)
        and verdict.metrics["validation/loss"] != verdict.metrics["validation/loss"]
    )
