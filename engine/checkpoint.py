"""Checkpoints: one safetensors file that holds trees of tensors and plain values; nothing in it can run.

Tensors are stored as bytes beside a JSON description of the trees, with a digest over all of it, and the file
appears whole or not at all. Objects are saved by their `state_dict`. What is neither is named, and then
there is no checkpoint: half a state would be a silent change of the training algorithm.
"""

import hashlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import safetensors
import safetensors.numpy

from timetrial.engine.errors import RecordError

# A tensor as (its bytes as a flat uint8 array, the name of its dtype, its shape), or None for other objects.
ToBytes = Callable[[Any], tuple[np.ndarray, str, tuple[int, ...]] | None]
FromBytes = Callable[[np.ndarray, str, tuple[int, ...]], Any]


def save(path: Path, sections: Mapping[str, Any], to_bytes: ToBytes) -> tuple[int, list[str]]:
    """Write the trees in `sections`; returns the file's size and the entries that cannot be saved.

    If there are such entries, nothing is written and the size is 0.
    """
    arrays: dict[str, np.ndarray] = {}
    left_out: list[str] = []
    nodes = {name: _encode(tree, f"{name}", to_bytes, arrays, left_out) for name, tree in sections.items()}
    if left_out:
        return 0, left_out
    structure = msgspec.json.encode(nodes).decode()
    metadata = {"structure": structure, "digest": _digest(structure, arrays)}
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    safetensors.numpy.save_file(arrays, temporary, metadata=metadata)
    with open(temporary, "r+b") as file:
        os.fsync(file.fileno())
    size = temporary.stat().st_size
    os.replace(temporary, path)
    return size, []


def load(path: Path, from_bytes: FromBytes) -> dict[str, Any]:
    """The trees that were saved. RecordError if the file is damaged in any way."""
    try:
        with safetensors.safe_open(path, framework="np") as file:
            metadata = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (safetensors.SafetensorError, OSError) as error:
        raise RecordError(f"{path} is no readable checkpoint: {error}") from error
    structure = metadata.get("structure", "")
    if _digest(structure, arrays) != metadata.get("digest"):
        raise RecordError(f"{path} is damaged: its digest does not fit its contents")
    nodes = msgspec.json.decode(structure, type=dict[str, Any])
    return {name: _decode(node, arrays, from_bytes) for name, node in nodes.items()}


def numpy_to_bytes(value: Any) -> tuple[np.ndarray, str, tuple[int, ...]] | None:
    """`ToBytes` for NumPy arrays and scalars."""
    if not isinstance(value, np.ndarray | np.generic):
        return None
    array = np.ascontiguousarray(value)
    return array.reshape(-1).view(np.uint8), f"numpy.{array.dtype.name}", np.shape(value)


def numpy_from_bytes(data: np.ndarray, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    """The inverse of `numpy_to_bytes`."""
    return data.view(np.dtype(dtype.removeprefix("numpy."))).reshape(shape)


def _encode(
    value: Any, path: str, to_bytes: ToBytes, arrays: dict[str, np.ndarray], left_out: list[str]
) -> Any:
    """`[kind, content]`: the kinds are value, tensor, dict, list, tuple and state (of an object)."""
    if value is None or isinstance(value, bool | int | float | str):
        return ["value", value]
    tensor = to_bytes(value)
    if tensor is not None:
        data, dtype, shape = tensor
        arrays[path] = data
        return ["tensor", [path, dtype, list(shape)]]
    if isinstance(value, Mapping):
        return [
            "dict",
            [[key, _encode(v, f"{path}.{key}", to_bytes, arrays, left_out)] for key, v in value.items()],
        ]
    if isinstance(value, list | tuple):
        kind = "list" if isinstance(value, list) else "tuple"
        return [kind, [_encode(v, f"{path}.{i}", to_bytes, arrays, left_out) for i, v in enumerate(value)]]
    if hasattr(value, "state_dict"):
        return ["state", _encode(value.state_dict(), path, to_bytes, arrays, left_out)]
    left_out.append(f"{path} (a {type(value).__qualname__})")
    return ["value", None]


def _decode(node: Any, arrays: Mapping[str, np.ndarray], from_bytes: FromBytes) -> Any:
    kind, content = node
    if kind == "value":
        return content
    if kind == "tensor":
        name, dtype, shape = content
        return from_bytes(arrays[name], dtype, tuple(shape))
    if kind == "dict":
        return {key: _decode(value, arrays, from_bytes) for key, value in content}
    if kind == "state":
        return _decode(content, arrays, from_bytes)
    values = [_decode(value, arrays, from_bytes) for value in content]
    return values if kind == "list" else tuple(values)


def _digest(structure: str, arrays: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.blake2b(structure.encode(), digest_size=16)
    for name in sorted(arrays):
        digest.update(name.encode())
        digest.update(arrays[name].data if arrays[name].size else b"")
    return digest.hexdigest()


def verify(path: Path) -> None:
    """RecordError if the file is absent or damaged."""
    load(path, lambda data, dtype, shape: None)
