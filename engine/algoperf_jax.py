"""What `algoperf.jax_sharding_utils` and `algoperf.random_utils` offer to a JAX submission.

There is one mesh axis, `batch`, over all devices: parameters and optimizer state are replicated, batches are
split along their first axis.
"""

from typing import Any

import jax
from jax.random import PRNGKey, fold_in, split
from jax.sharding import Mesh, NamedSharding, PartitionSpec

__all__ = [
    "PRNGKey",
    "display_shard_info",
    "fold_in",
    "get_batch_dim_sharding",
    "get_mesh",
    "get_replicate_sharding",
    "replicate",
    "shard_along_batch_dim",
    "split",
]


def get_mesh() -> Mesh:
    """All devices along the axis `batch`."""
    return Mesh(jax.devices(), ("batch",))


def get_replicate_sharding() -> NamedSharding:
    """A whole copy on every device."""
    return NamedSharding(get_mesh(), PartitionSpec())


def get_batch_dim_sharding() -> NamedSharding:
    """An equal share of the first axis on every device."""
    return NamedSharding(get_mesh(), PartitionSpec("batch"))


def shard_along_batch_dim(tree: Any) -> Any:
    """Put every array of `tree` on the devices, split along its first axis."""
    return jax.device_put(tree, get_batch_dim_sharding())


def replicate(tree: Any) -> Any:
    """Put a whole copy of every array of `tree` on every device."""
    return jax.device_put(tree, get_replicate_sharding())


def display_shard_info(x: jax.Array) -> None:
    """Print which slice of `x` lies on which device."""
    for shard in x.addressable_shards:
        print(f"device {shard.device}: index {shard.index}, replica {shard.replica_id}")
