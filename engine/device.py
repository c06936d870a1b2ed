"""The device of one framework, imported when it is asked for."""

from typing import Any, Protocol

import numpy as np

from timetrial.engine.errors import UsageError
from timetrial.engine.facts import Batch, Framework, WorkloadFacts


class Device(Protocol):
    """What `device_torch.TorchDevice` and `device_jax.JaxDevice` have in common; the documentation is there."""

    framework: Framework
    key_dtype: Any
    ranks: int
    shares: int
    gpu: int | None  # where batches may be made; None for the host

    def describe(self) -> str: ...
    def versions(self) -> dict[str, str]: ...
    def workload(self, facts: WorkloadFacts, **limits: Any) -> Any: ...
    def compile(self, params: Any) -> None: ...
    def compile_report(self) -> dict[str, float]: ...
    def place(self, batch: Batch) -> dict[str, Any]: ...
    def drain(self, *trees: Any) -> None: ...
    def agree(self, stop: bool) -> bool: ...
    def count_parameters(self, params: Any) -> int: ...
    def named_tensors(self, params: Any, model_state: Any) -> dict[str, np.ndarray]: ...
    def load_tensors(self, params: Any, model_state: Any, tensors: Any) -> tuple[Any, Any]: ...
    def random_state(self) -> dict[str, Any]: ...
    def restore_random_state(self, state: Any) -> None: ...
    def optimizer_tree(self, optimizer_state: Any) -> Any: ...
    def restore_optimizer(self, fresh: Any, saved: Any) -> Any: ...
    def to_bytes(self, value: Any) -> tuple[np.ndarray, str, tuple[int, ...]] | None: ...
    def from_bytes(self, data: np.ndarray, dtype: str, shape: tuple[int, ...]) -> Any: ...
    def close(self) -> None: ...


def open_device(
    framework: Framework, *, compile_cache: str, rank: int = 0, ranks: int = 1, rendezvous_port: int = 0
) -> Device:
    """This process's device. UsageError if the framework is not installed."""
    arguments: dict[str, Any] = {
        "rank": rank,
        "ranks": ranks,
        "rendezvous_port": rendezvous_port,
        "compile_cache": compile_cache,
    }
    try:
        if framework == "torch":
            from timetrial.engine.device_torch import TorchDevice

            return TorchDevice(**arguments)
        from timetrial.engine.device_jax import JaxDevice

        return JaxDevice(**arguments)
    except ModuleNotFoundError as error:
        raise UsageError(
            f"{framework} is not installed ({error.name} is missing): pip install 'timetrial[{framework}]'"
        ) from error
