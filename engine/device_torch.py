"""What the racer and the judge need of torch; `device_jax.py` has the same names."""

import os
import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.distributed
import torch.utils.dlpack
from torch import nn

from timetrial.engine import checkpoint, workload_torch
from timetrial.engine.facts import Batch, Framework, WorkloadFacts
from timetrial.engine.quiet import wait_until_quiet

# Bound before any submission is imported, so that a patched module attribute changes nothing here.
_cuda_synchronize = torch.cuda.synchronize


class TorchDevice:
    """One rank's device: a GPU where there is one, the CPU otherwise."""

    framework: Framework = "torch"
    key_dtype = np.int32
    named_tensors = staticmethod(workload_torch.named_tensors)
    load_tensors = staticmethod(workload_torch.load_tensors)

    def __init__(self, *, rank: int, ranks: int, rendezvous_port: int, compile_cache: str) -> None:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = compile_cache
        self.ranks = ranks
        self.shares = ranks  # the global batch must be a multiple of this
        self._cuda = torch.cuda.is_available()
        self._device = torch.device("cuda", rank) if self._cuda else torch.device("cpu")
        self.gpu = rank if self._cuda else None
        self._compiled = False
        if self._cuda:
            torch.cuda.set_device(self._device)
            torch.backends.cudnn.benchmark = True
        if ranks > 1:
            backend = "cpu:gloo,cuda:nccl" if self._cuda else "gloo"
            rendezvous = f"tcp://127.0.0.1:{rendezvous_port}"
            torch.distributed.init_process_group(backend, init_method=rendezvous, rank=rank, world_size=ranks)
            # Stopping is agreed on without touching the GPU's queue.
            self._agreement = torch.distributed.new_group(backend="gloo")

    def describe(self) -> str:
        """The device's name, for records."""
        return torch.cuda.get_device_name(self._device) if self._cuda else "cpu"

    def versions(self) -> dict[str, str]:
        """Versions that decide the numbers and the speed."""
        cuda = {"cuda": str(torch.version.cuda), "cudnn": str(torch.backends.cudnn.version())}
        return {"torch": str(torch.__version__)} | (cuda if self._cuda else {})

    def workload(self, facts: WorkloadFacts, **limits: Any) -> workload_torch.TorchWorkload:
        return workload_torch.TorchWorkload(facts, device=self._device, ranks=self.ranks, **limits)

    def compile(self, params: nn.Module) -> None:
        """Compile the model's forward whole, in place; a graph break is an error."""
        self._compiled = True
        workload_torch.unwrapped(params).compile(fullgraph=True)

    def compile_report(self) -> dict[str, float]:
        """Totals so far: compiled graphs, recompilations and seconds."""
        if not self._compiled:
            return {}
        from torch._dynamo.utils import compilation_time_metrics, counters

        sec = sum(compilation_time_metrics.get("compile_attempt_0", []))
        return {
            "graphs": float(counters["stats"]["unique_graphs"]),
            "recompiles": float(sum(counters["recompiles"].values())),
            "graph_breaks": float(sum(counters["graph_break"].values())),
            "seconds": float(sec),
        }

    def place(self, batch: Batch) -> dict[str, Any]:
        """The batch as tensors on the device; class labels become int64, as torch's losses want them."""
        return placed_batch(batch, self._device)

    def drain(self, *trees: Any) -> None:
        """Return when nothing that this process launched is still running: streams, devices, threads."""
        del trees
        if self._cuda:
            for index in range(torch.cuda.device_count() if self.ranks == 1 else 1):
                _cuda_synchronize(index if self.ranks == 1 else self._device)
        wait_until_quiet()

    def agree(self, stop: bool) -> bool:
        """The first rank's decision, on every rank."""
        if self.ranks == 1:
            return stop
        decision = torch.tensor([stop])
        torch.distributed.broadcast(decision, 0, group=self._agreement)
        return bool(decision)

    def count_parameters(self, params: nn.Module) -> int:
        return sum(parameter.numel() for parameter in params.parameters())

    def random_state(self) -> dict[str, Any]:
        """The state of every global generator that training may draw from."""
        return {
            "python": random.getstate(),
            "numpy": np.random.get_state(),
            "torch": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state_all() if self._cuda else [],
        }

    def restore_random_state(self, state: Mapping[str, Any]) -> None:
        version, internal, gauss = state["python"]
        random.setstate((version, tuple(internal), gauss))
        np.random.set_state(state["numpy"])
        torch.set_rng_state(state["torch"])
        if self._cuda:
            torch.cuda.set_rng_state_all(state["cuda"])

    def optimizer_tree(self, optimizer_state: Any) -> Any:
        """What a checkpoint holds of the optimizer state."""
        return optimizer_state

    def restore_optimizer(self, fresh: Any, saved: Any) -> Any:
        """The optimizer state, given one freshly initialised and what a checkpoint held."""
        if hasattr(fresh, "load_state_dict"):
            fresh.load_state_dict(saved)
            return fresh
        if isinstance(fresh, dict) and isinstance(saved, dict):
            return {key: self.restore_optimizer(fresh.get(key), value) for key, value in saved.items()}
        if isinstance(fresh, torch.Tensor) and isinstance(saved, torch.Tensor):
            return saved.to(fresh.device)
        return saved

    @staticmethod
    def to_bytes(value: Any) -> tuple[np.ndarray, str, tuple[int, ...]] | None:
        """`checkpoint.ToBytes` for torch tensors and NumPy arrays."""
        if not isinstance(value, torch.Tensor):
            return checkpoint.numpy_to_bytes(value)
        data = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        return data, str(value.dtype), tuple(value.shape)

    @staticmethod
    def from_bytes(data: np.ndarray, dtype: str, shape: tuple[int, ...]) -> Any:
        """The inverse of `to_bytes`; tensors come back on the CPU."""
        if dtype.startswith("numpy."):
            return checkpoint.numpy_from_bytes(data, dtype, shape)
        return torch.tensor(data).view(getattr(torch, dtype.removeprefix("torch."))).reshape(shape)

    def close(self) -> None:
        """Leave the ranks' process group."""
        if self.ranks > 1:
            torch.distributed.destroy_process_group()


def placed_batch(batch: Batch, device: torch.device) -> dict[str, Any]:
    """The batch as tensors on the device; class labels become int64, as torch's losses want them."""
    return {name: _placed(value, device) for name, value in batch.items()}


def _placed(value: Any, device: torch.device) -> Any:
    """A value of a batch, an array or a (named) tuple of arrays, as tensors."""
    if isinstance(value, tuple):
        parts = [_placed(part, device) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    if isinstance(value, np.ndarray):
        tensor = torch.from_numpy(value if value.flags.writeable else value.copy())
    else:
        tensor = torch.utils.dlpack.from_dlpack(value)
    if tensor.dtype is torch.int32:
        tensor = tensor.long()
    return tensor.to(device, non_blocking=True)
