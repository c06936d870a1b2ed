"""The judge: holds the evaluation data and a model of its own, and scores snapshots.

It never sees the submission. What it accepts are plain tensors with exactly the names, shapes and dtypes of the
workload's model.
"""

import traceback
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import safetensors
import safetensors.numpy

from timetrial.engine.clock import now_ns
from timetrial.engine.device import open_device
from timetrial.engine.errors import SnapshotError, UsageError
from timetrial.engine.facts import WorkloadFacts
from timetrial.engine.messages import (
    Failed,
    JudgeReady,
    JudgeSnapshot,
    Message,
    PrepareJudge,
    Refused,
    Verdict,
)
from timetrial.engine.seeds import random_key
from timetrial.engine.total import Total
from timetrial.engine.workload import PREFIX, splits_of


class Judge:
    """Answers the referee's messages, in this process or at the end of a channel."""

    def __init__(self, workloads: Mapping[str, WorkloadFacts]) -> None:
        self._workloads = workloads

    def handle(self, message: Message) -> Message:
        """The answer to one message; exceptions become `Failed`, a wrong snapshot `Refused`."""
        try:
            match message:
                case PrepareJudge():
                    return self._prepare(message)
                case JudgeSnapshot(path=path):
                    return self._judge(Path(path))
            raise UsageError(f"a judge does not understand {type(message).__name__}")
        except SnapshotError as error:
            return Refused(why=str(error))
        except Exception as error:
            why = f"{type(error).__name__}: {' '.join(str(error).split())}"
            return Failed(why=why, traceback=traceback.format_exc())

    def _prepare(self, message: PrepareJudge) -> JudgeReady:
        self._facts = self._workloads[message.workload]
        self._device = device = open_device(message.framework, compile_cache=message.compile_cache)
        self._data = Path(message.data)
        self._workload = device.workload(self._facts)
        self._params, self._model_state = self._workload.init_model_fn(random_key(0, device.framework))
        if message.compile:
            device.compile(self._params)
        # The shapes of a snapshot, and a first evaluation: whatever is compiled or cached is so before the race.
        self._expected = device.named_tensors(self._params, self._model_state)
        self._evaluate()
        return JudgeReady(versions=device.versions())

    def _judge(self, path: Path) -> Verdict:
        start = now_ns()
        try:
            tensors = safetensors.numpy.load_file(path)
        except (safetensors.SafetensorError, OSError, KeyError) as error:
            raise SnapshotError(f"the snapshot cannot be read: {error}") from error
        require_same_entries(tensors, self._expected)
        wrong = next((name for name, value in tensors.items() if not _is_finite(value)), None)
        read = now_ns()
        if wrong is not None:
            return Verdict(metrics={}, diverged=wrong, read_ns=read - start, judge_ns=0)
        self._params, self._model_state = self._device.load_tensors(self._params, self._model_state, tensors)
        metrics = self._evaluate()
        return Verdict(metrics=metrics, diverged=None, read_ns=read - start, judge_ns=now_ns() - read)

    def _evaluate(self) -> dict[str, float]:
        """Metrics of every split."""
        result: dict[str, float] = {}
        for split in splits_of(self._facts):
            total = Total()
            batches = self._facts.dataset.evaluation_batches(
                self._data, split, self._facts.eval_batch_size, self._device.gpu
            )
            for batch in batches:
                placed = self._device.place(batch)
                total.add(self._workload.score(self._params, self._model_state, placed))
            metrics = self._facts.metrics(total.statistics(), self._data)
            result |= {f"{PREFIX[split]}/{name}": value for name, value in metrics.items()}
        return result


def require_same_entries(tensors: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray]) -> None:
    """SnapshotError naming the first entry whose presence, shape or dtype is not as in `expected`."""
    for name in sorted(tensors.keys() | expected.keys()):
        if name not in tensors:
            raise SnapshotError(f"the parameters lack {name!r}")
        if name not in expected:
            raise SnapshotError(f"the parameters have {name!r}, which the workload's model has not")
        got, want = tensors[name], expected[name]
        if got.shape != want.shape:
            raise SnapshotError(f"{name!r} has shape {got.shape}; the workload's model has {want.shape}")
        if got.dtype != want.dtype:
            raise SnapshotError(f"{name!r} is {got.dtype}; the workload's model has {want.dtype}")


def _is_finite(value: np.ndarray) -> bool:
    return value.dtype.kind != "f" or bool(np.isfinite(value).all())
