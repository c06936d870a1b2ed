"""The racer: builds training data, model and submission, and runs steps until it is told to stop.

It is told once per segment how long the segment lasts. After each step it compares one clock reading with that
and otherwise talks to nobody. Before it says that it stands still, everything it launched has ended.
"""

import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import safetensors.numpy

from timetrial.engine import algoperf, checkpoint, submission
from timetrial.engine.clock import now_ns
from timetrial.engine.device import Device, open_device
from timetrial.engine.errors import Error, SnapshotError, SubmissionError
from timetrial.engine.facts import Batch, KernelUses, Order, WorkloadFacts
from timetrial.engine.fence import Fence
from timetrial.engine.messages import (
    Failed,
    Go,
    Message,
    PrepareRacer,
    RacerReady,
    Stopped,
    TakeCheckpoint,
    TakeSnapshot,
    Written,
)
from timetrial.engine.progress import Progress
from timetrial.engine.search import as_hyperparameters
from timetrial.engine.seeds import StepKeys, random_key, streams
from timetrial.engine.spec import TrainingCompleteError
from timetrial.engine.workload import ScalarLog


class InputQueue(Iterator[dict[str, Any]]):
    """The endless training batches, on the device; knows how many were drawn and how long that blocked."""

    def __init__(self, batches: Iterator[Batch], device: Device, drawn: int) -> None:
        self._batches = batches
        self._place = device.place
        self.drawn = drawn
        self.wait_ns = 0

    def __next__(self) -> dict[str, Any]:
        start = now_ns()
        batch = self._place(next(self._batches))
        self.drawn += 1
        self.wait_ns += now_ns() - start
        return batch


class Racer:
    """Answers the referee's messages, in this process or at the end of a channel."""

    def __init__(self, workloads: Mapping[str, WorkloadFacts], kernels: KernelUses) -> None:
        self._workloads = workloads
        self._kernels = kernels

    def handle(self, message: Message) -> Message:
        """The answer to one message; exceptions become `Failed`."""
        try:
            match message:
                case PrepareRacer():
                    return self._prepare(message)
                case Go():
                    stopped = self._run(message)
                    return self._breached() or stopped
                case TakeSnapshot(path=path):
                    return self._write_snapshot(Path(path))
                case TakeCheckpoint(path=path):
                    return self._write_checkpoint(self._of_this_rank(path))
            raise SubmissionError(f"a racer does not understand {type(message).__name__}")
        except SnapshotError as error:
            return Failed(why=str(error), traceback="", void=True)
        except Exception as error:
            return self._breached() or Failed(why=_in_one_line(error), traceback=traceback.format_exc())

    def _breached(self) -> Failed | None:
        if self._fence.breach is None:
            return None
        why = f"the submission tried to open evaluation data ({self._fence.breach})"
        return Failed(why=why, traceback="", void=True)

    def _prepare(self, message: PrepareRacer) -> RacerReady:
        self._fence = Fence(message.forbidden)
        self._facts = self._workloads[message.workload]
        self._rank = message.rank
        self._device = device = open_device(
            message.framework,
            compile_cache=message.compile_cache,
            rank=message.rank,
            ranks=message.ranks,
            rendezvous_port=message.rendezvous_port,
        )
        seeds = streams(message.trial_seed)
        self._keys = StepKeys(seeds.loop, device.framework)
        self._scalars = ScalarLog()
        self._workload = device.workload(
            self._facts,
            max_allowed_runtime_sec=message.max_allowed_runtime_sec,
            eval_period_time_sec=message.eval_period_time_sec,
            metrics_logger=self._scalars if message.rank == 0 else None,
        )
        self._params, self._model_state = self._workload.init_model_fn(
            random_key(seeds.model_init, device.framework)
        )
        # A submission may import AlgoPerf's names at any time, not only while it is being loaded.
        algoperf.names(device.framework).__enter__()
        self._submission = submission.load(message.submission, device.framework)
        name = self._facts.base if self._facts.suite == "pocket" else self._facts.name
        batch_size = self._facts.batch_size(self._submission.batch_size(name, self._facts.base))
        _require_shares(batch_size, device)
        if message.compile:
            device.compile(self._params)
        self._hyperparameters = as_hyperparameters(message.hyperparameters)
        self._optimizer_state = self._submission.functions.init_optimizer_state(
            self._workload,
            self._params,
            self._model_state,
            self._hyperparameters,
            random_key(seeds.optimizer_init, device.framework),
        )
        self._eval_results: list[tuple[int, dict[str, float]]] = []
        self._train_state: dict[str, Any] = {}
        self._step = drawn = 0
        if message.checkpoint is not None:
            self._step, drawn = self._restore(self._of_this_rank(message.checkpoint))
        self._queue = self._open_queue(message, batch_size, seeds.data, drawn)
        self._progress = Progress(Path(message.progress), create=False) if message.rank == 0 else None
        self._first_call = True
        device.drain(self._optimizer_state, self._params, self._model_state)
        return RacerReady(
            global_step=self._step,
            batch_size=batch_size,
            parameters=device.count_parameters(self._params),
            device=device.describe(),
            versions=device.versions(),
        )

    def _open_queue(self, message: PrepareRacer, batch_size: int, seed: int, drawn: int) -> InputQueue:
        order = Order(
            batch_size=batch_size,
            seed=seed,
            first_batch=drawn,
            rank=message.rank,
            world_size=message.ranks,
            gpu=self._device.gpu,
        )
        batches = self._facts.dataset.training_batches(Path(message.data), order)
        return InputQueue(batches, self._device, drawn)

    def _run(self, go: Go) -> Stopped:
        start = now_ns()
        deadline = start + go.run_ns
        self._eval_results.extend((step, dict(metrics)) for step, metrics in go.new_results)
        self._train_state.update(go.train_state)
        compiled_before = self._device.compile_report()
        spans = dict.fromkeys(("first_call", "select", "update", "prepare", "drain"), 0)
        waited_before = self._queue.wait_ns
        complete = self._steps(start, deadline, go, spans)
        end = now_ns()
        self._prepare_for_eval()
        prepared = now_ns()
        self._device.drain(self._optimizer_state, self._params, self._model_state)
        scalars = self._scalars.take()  # reading what was logged may still have to wait for a device
        drained = now_ns()
        spans["prepare"] = prepared - end
        spans["drain"] = drained - prepared
        data_wait = self._queue.wait_ns - waited_before
        spans["data_wait"] = data_wait
        spans["select"] -= data_wait
        spans["loop"] = drained - start - sum(spans.values())
        compiled = self._device.compile_report()
        return Stopped(
            global_step=self._step,
            training_complete=complete,
            racer_ns=now_ns() - start,
            breakdown=spans,
            compile={name: value - compiled_before.get(name, 0.0) for name, value in compiled.items()},
            kernels=self._kernels(),
            scalars=scalars,
        )

    def _steps(self, start: int, deadline: int, go: Go, spans: dict[str, int]) -> bool:
        """The timed loop. Returns whether the submission declared its training complete."""
        functions = self._submission.functions
        select, update = functions.data_selection, functions.update_params
        workload, queue, keys, agree = self._workload, self._queue, self._keys, self._device.agree
        params, state, optimizer = self._params, self._model_state, self._optimizer_state
        hyperparameters, step = self._hyperparameters, self._step
        arguments: dict[str, Any] = {
            "workload": workload,
            "current_params_types": workload.model_params_types,
            "hyperparameters": hyperparameters,
            "loss_type": workload.loss_type,
            "eval_results": self._eval_results,
        }
        if self._submission.wants_train_state:
            arguments["train_state"] = MappingProxyType(self._train_state)
        train_state = self._train_state if self._submission.wants_train_state else None
        charged_before = self._train_state.get("accumulated_submission_time", 0.0)
        progress, last_step = self._progress, -1 if go.last_step is None else go.last_step
        select_ns = update_ns = 0
        complete = False
        begun = start
        while True:
            select_key, update_key, _ = keys(step)
            before = now_ns()
            batch = select(workload, queue, optimizer, params, state, hyperparameters, step, select_key)
            selected = now_ns()
            try:
                optimizer, params, state = update(
                    current_param_container=params,
                    model_state=state,
                    batch=batch,
                    optimizer_state=optimizer,
                    global_step=step,
                    rng=update_key,
                    **arguments,
                )
            except TrainingCompleteError:
                complete = True
            now = now_ns()
            step += 1
            if self._first_call:
                self._first_call = False
                spans["first_call"] = now - selected
                update_ns -= now - selected
            select_ns += selected - before
            update_ns += now - selected
            if progress is not None:
                progress.write(step)
            if train_state is not None:
                train_state["accumulated_submission_time"] = charged_before + (now - begun) / 1e9
                train_state["last_step_end_time"] = now / 1e9
            if agree(now >= deadline or complete or step == last_step):
                break
        self._params, self._model_state, self._optimizer_state, self._step = params, state, optimizer, step
        spans["select"], spans["update"] = select_ns, update_ns
        return complete

    def _prepare_for_eval(self) -> None:
        prepare = self._submission.functions.prepare_for_eval
        if prepare is None:
            return
        self._optimizer_state, self._params, self._model_state = prepare(
            workload=self._workload,
            current_param_container=self._params,
            current_params_types=self._workload.model_params_types,
            model_state=self._model_state,
            hyperparameters=self._hyperparameters,
            loss_type=self._workload.loss_type,
            optimizer_state=self._optimizer_state,
            eval_results=self._eval_results,
            global_step=self._step,
            rng=self._keys(self._step)[2],
        )

    def _write_snapshot(self, path: Path) -> Written:
        start = now_ns()
        if self._rank:  # all ranks hold the same parameters
            return Written(bytes=0, write_ns=0)
        tensors = self._device.named_tensors(self._params, self._model_state)
        safetensors.numpy.save_file(tensors, path)
        return Written(bytes=path.stat().st_size, write_ns=now_ns() - start)

    def _of_this_rank(self, path: str) -> Path:
        """Ranks differ in their random state, so each has its own checkpoint."""
        return Path(f"{path}.rank{self._rank}" if self._rank else path)

    def _write_checkpoint(self, path: Path) -> Written:
        start = now_ns()
        sections = {
            "model": self._device.named_tensors(self._params, self._model_state),
            "optimizer_state": self._device.optimizer_tree(self._optimizer_state),
            "random_state": self._device.random_state(),
            "eval_results": self._eval_results,
            "position": {"step": self._step, "batches_drawn": self._queue.drawn},
        }
        size, left_out = checkpoint.save(path, sections, self._device.to_bytes)
        return Written(bytes=size, write_ns=now_ns() - start, left_out=left_out)

    def _restore(self, path: Path) -> tuple[int, int]:
        sections = checkpoint.load(path, self._device.from_bytes)
        model = {name: np.asarray(value) for name, value in sections["model"].items()}
        self._params, self._model_state = self._device.load_tensors(self._params, self._model_state, model)
        self._optimizer_state = self._device.restore_optimizer(
            self._optimizer_state, sections["optimizer_state"]
        )
        self._device.restore_random_state(sections["random_state"])
        self._eval_results.extend((step, metrics) for step, metrics in sections["eval_results"])
        position = sections["position"]
        return position["step"], position["batches_drawn"]


def _require_shares(batch_size: int, device: Device) -> None:
    if batch_size % device.shares:
        raise SubmissionError(
            f"the global batch of {batch_size} cannot be split over {device.shares} devices: "
            "get_batch_size must return a multiple of their number"
        )


def _in_one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    if isinstance(error, Error):
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
