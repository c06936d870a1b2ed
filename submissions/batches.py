"""The batches of AlgoPerf's own baselines: their sizes, and taking whichever comes next."""

from collections.abc import Iterator
from typing import Any

from timetrial.engine.spec import Workload

# Global batch sizes. A variant without an entry has its base workload's.
BATCH_SIZES: dict[str, int] = {
    "criteo1tb": 262_144,
    "fastmri": 32,
    "imagenet_resnet": 1024,
    "imagenet_resnet_silu": 512,
    "imagenet_resnet_gelu": 512,
    "imagenet_vit": 1024,
    "librispeech_conformer": 256,
    "librispeech_deepspeech": 256,
    "ogbg": 512,
    "wmt": 128,
    "finewebedu_lm": 64,
    "mnist": 16,
    "cifar": 128,
}


def get_batch_size(workload_name: str) -> int:
    """The global batch size; ValueError for a name without one, so that the base workload's is asked for."""
    if workload_name not in BATCH_SIZES:
        raise ValueError(f"there is no batch size for {workload_name!r}")
    return BATCH_SIZES[workload_name]


def data_selection(
    workload: Workload,
    input_queue: Iterator[dict[str, Any]],
    optimizer_state: Any,
    current_param_container: Any,
    model_state: Any,
    hyperparameters: Any,
    global_step: int,
    rng: Any,
) -> dict[str, Any]:
    """The next batch of the queue."""
    del workload, optimizer_state, current_param_container, model_state, hyperparameters, global_step, rng
    return next(input_queue)
