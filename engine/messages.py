"""What referee, racer and judge say to each other, and the channel that carries it.

A frame is four bytes of length and a MessagePack body, decoded against the types below: nothing else can
arrive, and no code travels. Tensors never pass here; they lie in a safetensors file whose path is named.
"""

import select
import socket
import struct
from typing import Any

import msgspec

from timetrial.engine.errors import Error
from timetrial.engine.facts import Framework

EvalResult = tuple[int, dict[str, float]]  # (global_step, metrics)


class Message(msgspec.Struct, frozen=True, kw_only=True, tag=True, forbid_unknown_fields=True):
    """Base of all messages; a message's type is its tag."""


# To the racer


class PrepareRacer(Message, frozen=True, kw_only=True):
    """Build data, model and submission. Answered by RacerReady or Failed."""

    workload: str
    framework: Framework
    submission: str  # path of the folder or file
    hyperparameters: dict[str, Any] | None
    trial_seed: int
    data: str  # folder
    forbidden: list[str]  # folders in it that the racer may not open
    compile_cache: str  # folder
    compile: bool
    rank: int
    ranks: int
    rendezvous_port: int  # of the ranks' process group; 0 for a single rank
    progress: str  # file that the step count is written to
    max_allowed_runtime_sec: float
    eval_period_time_sec: float
    checkpoint: str | None  # continue from this file


class Go(Message, frozen=True, kw_only=True):
    """Run steps. Answered by Stopped or Failed; the clock runs from sending this to receiving that."""

    run_ns: int
    last_step: int | None
    new_results: list[EvalResult]  # evaluations since the last Go
    train_state: dict[str, bool | float]  # AlgoPerf's, for the submission to read


class TakeSnapshot(Message, frozen=True, kw_only=True):
    """Write the tensors to evaluate. Answered by Written or Failed."""

    path: str


class TakeCheckpoint(Message, frozen=True, kw_only=True):
    """Write everything a later sitting needs to go on. Answered by Written or Failed."""

    path: str


# From the racer


class RacerReady(Message, frozen=True, kw_only=True):
    global_step: int  # not 0 after a checkpoint
    batch_size: int
    parameters: int  # scalars
    device: str
    versions: dict[str, str]


class Stopped(Message, frozen=True, kw_only=True):
    """The racer stands still, its devices drained."""

    global_step: int
    training_complete: bool
    racer_ns: int  # the span by the racer's own clock
    breakdown: dict[str, int]  # ns of this span: first_call, data_wait, select, update, prepare, drain, loop
    compile: dict[str, float]  # what the framework reports of compilation in this span
    kernels: dict[str, list[str]]  # the workload's fused operators so far: which form of each ran, and how
    scalars: list[tuple[int, dict[str, float]]]  # what the submission logged: (global_step, metrics)


class Written(Message, frozen=True, kw_only=True):
    """The file is complete. `left_out` names entries that could not be saved (checkpoints only)."""

    bytes: int
    write_ns: int
    left_out: list[str] = []


# To and from the judge


class PrepareJudge(Message, frozen=True, kw_only=True):
    """Build the model and open the evaluation data. Answered by JudgeReady or Failed."""

    workload: str
    framework: Framework
    data: str  # folder
    compile_cache: str
    compile: bool


class JudgeReady(Message, frozen=True, kw_only=True):
    versions: dict[str, str]


class JudgeSnapshot(Message, frozen=True, kw_only=True):
    """Evaluate the snapshot at `path`. Answered by Verdict, Refused or Failed."""

    path: str


class Verdict(Message, frozen=True, kw_only=True):
    """Metrics as `train/…`, `validation/…`, `test/…`; or, `diverged` naming it, a tensor that is not finite."""

    metrics: dict[str, float]
    diverged: str | None
    read_ns: int
    judge_ns: int


class Refused(Message, frozen=True, kw_only=True):
    """The snapshot's tensors are not those of the model; `why` names the entry."""

    why: str


class Failed(Message, frozen=True, kw_only=True):
    """An exception: in the submission, or in ours. `void` where a rule was broken on purpose."""

    why: str
    traceback: str
    void: bool = False


AnyMessage = (
    PrepareRacer
    | Go
    | TakeSnapshot
    | TakeCheckpoint
    | RacerReady
    | Stopped
    | Written
    | PrepareJudge
    | JudgeReady
    | JudgeSnapshot
    | Verdict
    | Refused
    | Failed
)

_HEADER = struct.Struct("!I")
_LONGEST_FRAME = 256 * 2**20


class ChannelClosed(Error):
    """The process at the other end is gone."""


class Channel:
    """One end of a socket pair."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._decoder = msgspec.msgpack.Decoder(AnyMessage)
        self._encoder = msgspec.msgpack.Encoder()

    def send(self, message: Message) -> None:
        """Send one message; ChannelClosed if nobody is left to read it."""
        body = self._encoder.encode(message)
        try:
            self._socket.sendall(_HEADER.pack(len(body)) + body)
        except OSError as error:
            raise ChannelClosed("the process at the other end is gone") from error

    def receive(self, timeout_sec: float | None = None) -> Message | None:
        """The next message, or None if none begins within `timeout_sec`.

        ChannelClosed at the end of the stream; msgspec.ValidationError for anything that is no message.
        """
        if timeout_sec is not None and not select.select([self._socket], [], [], timeout_sec)[0]:
            return None
        (length,) = _HEADER.unpack(self._exactly(_HEADER.size))
        if length > _LONGEST_FRAME:
            raise ChannelClosed(f"a frame of {length} bytes is longer than any message")
        message: Message = self._decoder.decode(self._exactly(length))
        return message

    def close(self) -> None:
        self._socket.close()

    def _exactly(self, count: int) -> bytes:
        parts = bytearray()
        while len(parts) < count:
            try:
                part = self._socket.recv(count - len(parts))
            except ConnectionError as error:
                raise ChannelClosed("the process at the other end is gone") from error
            if not part:
                raise ChannelClosed("the process at the other end is gone")
            parts += part
        return bytes(parts)
