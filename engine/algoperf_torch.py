"""What `algoperf.pytorch_utils` and `algoperf.random_utils` offer to a torch submission."""

import os

import numpy as np
import torch
import torch.distributed as dist


def pytorch_setup() -> tuple[bool, int, torch.device, int]:
    """(whether several ranks train together, local rank, this rank's device, number of devices in the race).

    Read from the variables torchrun sets, LOCAL_RANK and WORLD_SIZE; without them there is one device. The
    device is `cuda:<local rank>` where CUDA is available, else the CPU (ranks over gloo).
    """
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    device = torch.device(f"cuda:{local_rank}" if torch.cuda.is_available() else "cpu")
    return world_size > 1, local_rank, device, world_size


def sync_ddp_time(time: float, device: torch.device) -> float:
    """The largest `time` (seconds) of all ranks; waits for the device."""
    longest = torch.tensor(time, dtype=torch.float64, device=device)
    dist.all_reduce(longest, op=dist.ReduceOp.MAX)
    return longest.item()


def update_batch_norm_fn(module: torch.nn.Module, update_batch_norm: bool) -> None:
    """Stop or restart the running statistics of `module` if it is a batch norm; for `nn.Module.apply`."""
    if not isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
        return
    kept = vars(module)
    if update_batch_norm:
        module.momentum = kept.pop("momentum_while_updating", module.momentum)
    else:
        kept.setdefault("momentum_while_updating", module.momentum)
        module.momentum = 0.0


def PRNGKey(seed: int) -> np.ndarray:
    """An `rng` made of one number: int32[2], not negative."""
    return _pairs(1, int(seed)).reshape(2)


def split(rng: np.ndarray, num: int = 2) -> np.ndarray:
    """`num` independent keys: int32[num, 2]."""
    return _pairs(num, *map(int, rng))


def fold_in(rng: np.ndarray, data: int) -> np.ndarray:
    """The key that belongs to (rng, data): int32[2]."""
    return _pairs(1, *map(int, rng), int(data)).reshape(2)


def _pairs(num: int, *entropy: int) -> np.ndarray:
    # SeedSequence pads its entropy with zeros, so the length is part of it.
    words = np.random.SeedSequence([len(entropy), *entropy]).generate_state(2 * num)
    return (words >> 1).astype(np.int32).reshape(num, 2)
