"""What the racer and the judge need of JAX; `device_torch.py` has the same names."""

import os
import random
from collections.abc import Callable, Mapping
from importlib import metadata
from typing import Any

import jax
import jax.dlpack
import jax.monitoring
import numpy as np

from timetrial.engine import checkpoint, workload_jax
from timetrial.engine.algoperf_jax import get_batch_dim_sharding, get_replicate_sharding
from timetrial.engine.errors import UsageError
from timetrial.engine.facts import Batch, Framework, WorkloadFacts
from timetrial.engine.quiet import wait_until_quiet

_block_until_ready: Callable[[Any], Any] = jax.block_until_ready
_live_arrays: Callable[[], list[jax.Array]] = jax.live_arrays
_effects_barrier: Callable[[], None] = jax.effects_barrier

_COMPILE_EVENTS = {
    "/jax/core/compile/jaxpr_trace_duration": "trace_seconds",
    "/jax/core/compile/jaxpr_to_mlir_module_duration": "lower_seconds",
    "/jax/core/compile/backend_compile_duration": "compile_seconds",
    "/jax/compilation_cache/cache_retrieval_time_sec": "cache_seconds",
}


class JaxDevice:
    """All local devices: parameters replicated, batches split along their first axis."""

    framework: Framework = "jax"
    key_dtype = np.uint32
    named_tensors = staticmethod(workload_jax.named_tensors)
    load_tensors = staticmethod(workload_jax.load_tensors)

    def __init__(self, *, rank: int, ranks: int, rendezvous_port: int, compile_cache: str) -> None:
        del rank, rendezvous_port
        if ranks != 1:
            raise UsageError(
                f"{ranks} ranks were asked for, but JAX drives all local devices from one process"
            )
        # The judge's process has its share of a GPU's memory too; JAX would take three quarters for the first.
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
        jax.config.update("jax_compilation_cache_dir", compile_cache)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
        jax.config.update("jax_threefry_partitionable", True)
        self.ranks = 1
        self.shares = jax.local_device_count()
        # One GPU can make its own batches; for several they are split from the host's memory.
        one_gpu = self.shares == 1 and jax.local_devices()[0].platform == "gpu"
        self.gpu = 0 if one_gpu else None
        self._replicated = get_replicate_sharding()
        self._split = get_batch_dim_sharding()
        self._report = dict.fromkeys(_COMPILE_EVENTS.values(), 0.0) | {"compilations": 0.0}
        jax.monitoring.register_event_duration_secs_listener(self._on_duration)
        self._probes = [jax.device_put(np.float32(0), device) for device in jax.local_devices()]

    def describe(self) -> str:
        """The device's name, for records."""
        return str(jax.local_devices()[0].device_kind)

    def versions(self) -> dict[str, str]:
        """Versions that decide the numbers and the speed."""
        return {"jax": jax.__version__, "jaxlib": metadata.version("jaxlib")}

    def workload(self, facts: WorkloadFacts, **limits: Any) -> workload_jax.JaxWorkload:
        return workload_jax.JaxWorkload(facts, sharding=self._replicated, **limits)

    def compile(self, params: Any) -> None:
        """Nothing: a JAX submission jits its own step."""

    def compile_report(self) -> dict[str, float]:
        """Totals so far: seconds of tracing, lowering, compiling and reading the cache; number of compilations."""
        return dict(self._report)

    def place(self, batch: Batch) -> dict[str, Any]:
        """The batch as global arrays, split over the devices."""
        arrays = jax.tree.map(
            lambda value: value if isinstance(value, np.ndarray) else jax.dlpack.from_dlpack(value),
            dict(batch),
        )
        placed: dict[str, Any] = jax.device_put(arrays, self._split)
        return placed

    def drain(self, *trees: Any) -> None:
        """Return when nothing that this process launched is still running: arrays, queues, callbacks, threads."""
        _block_until_ready(trees)
        _block_until_ready([array for array in _live_arrays() if not array.is_deleted()])
        _block_until_ready([probe + 1 for probe in self._probes])  # each device's queue is in order
        _effects_barrier()
        wait_until_quiet()

    def agree(self, stop: bool) -> bool:
        """One process decides alone."""
        return stop

    def count_parameters(self, params: Any) -> int:
        return sum(leaf.size for leaf in jax.tree.leaves(params))

    def random_state(self) -> dict[str, Any]:
        """The state of the global generators that training may draw from; JAX itself has none."""
        return {"python": random.getstate(), "numpy": np.random.get_state()}

    def restore_random_state(self, state: Mapping[str, Any]) -> None:
        version, internal, gauss = state["python"]
        random.setstate((version, tuple(internal), gauss))
        np.random.set_state(state["numpy"])

    def optimizer_tree(self, optimizer_state: Any) -> Any:
        """What a checkpoint holds of the optimizer state: its leaves, without the functions among them."""
        return [None if callable(leaf) else leaf for leaf in jax.tree.leaves(optimizer_state)]

    def restore_optimizer(self, fresh: Any, saved: Any) -> Any:
        """The optimizer state, given one freshly initialised and what a checkpoint held."""
        leaves, structure = jax.tree.flatten(fresh)
        restored = [
            jax.device_put(new, old.sharding) if isinstance(old, jax.Array) else old if callable(old) else new
            for old, new in zip(leaves, saved, strict=True)
        ]
        return jax.tree.unflatten(structure, restored)

    @staticmethod
    def to_bytes(value: Any) -> tuple[np.ndarray, str, tuple[int, ...]] | None:
        """`checkpoint.ToBytes` for JAX and NumPy arrays."""
        return checkpoint.numpy_to_bytes(np.asarray(value) if isinstance(value, jax.Array) else value)

    @staticmethod
    def from_bytes(data: np.ndarray, dtype: str, shape: tuple[int, ...]) -> Any:
        """The inverse of `to_bytes`."""
        return checkpoint.numpy_from_bytes(data, dtype, shape)

    def close(self) -> None:
        """Nothing to leave."""

    def _on_duration(self, event: str, duration_secs: float, **unused: Any) -> None:
        name = _COMPILE_EVENTS.get(event)
        if name is not None:
            self._report[name] += duration_secs
            self._report["compilations"] += name == "compile_seconds"
