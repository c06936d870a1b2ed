"""A snapshot holds the whole model, for every workload: what the judge loads is what the racer had.

The default run takes the pocket suite's models, one of each kind, and the development ones; the others, and all
at full size, are marked slow.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from small_models import small
from workload_cases import sized_workloads

from timetrial.engine.device import open_device
from timetrial.engine.errors import SnapshotError
from timetrial.engine.judge import require_same_entries
from timetrial.engine.seeds import random_key
from timetrial.engine.workload_torch import named_tensors
from timetrial.workloads import SUITES, WORKLOADS

SIZES = {"small": small, "full": lambda model: model}


@pytest.mark.parametrize("framework", ["torch", "jax"])
@pytest.mark.parametrize(("name", "size"), sized_workloads(SUITES["algoperf"] + SUITES["variants"]))
def test_a_snapshot_is_the_whole_model(name: str, size: str, framework: Any, tmp_path: Any) -> None:
    facts = WORKLOADS[name]
    device = open_device(framework, compile_cache=str(tmp_path / "cache"))
    workload = device.workload(replace(facts, model=SIZES[size](facts.model)))
    first = workload.init_model_fn(random_key(1, framework))
    tensors = device.named_tensors(*first)
    assert sum(value.size for key, value in tensors.items() if "state" not in key) >= device.count_parameters(
        first[0]
    )
    safetensors.numpy.save_file(tensors, tmp_path / "snapshot")
    read = safetensors.numpy.load_file(tmp_path / "snapshot")

    other = workload.init_model_fn(random_key(2, framework))
    expected = device.named_tensors(*other)
    require_same_entries(read, expected)
    assert any(not np.array_equal(read[key], expected[key]) for key in read)
    back = device.named_tensors(*device.load_tensors(*other, read))
    assert back.keys() == tensors.keys()
    for key in tensors:
        assert back[key].shape == tensors[key].shape and np.array_equal(back[key], tensors[key]), key
    # Loading must not change the trees' shapes: scalars stay scalars.
    shapes = workload.param_shapes
    if framework == "torch":
        assert all(tensors[key].shape == shape.shape_tuple for key, shape in shapes.items())
    else:
        import jax

        leaves = jax.tree.leaves(device.load_tensors(*other, read)[0])
        assert [leaf.shape for leaf in leaves] == [shape.shape_tuple for shape in jax.tree.leaves(shapes)]


def test_a_tensor_in_disguise_is_refused() -> None:
    import torch

    class Disguised(torch.Tensor):
        pass

    module = torch.nn.Linear(2, 2)
    module.weight.data = module.weight.data.as_subclass(Disguised)
    module._parameters["bias"] = torch.nn.Parameter(torch.zeros(2)).as_subclass(Disguised)  # type: ignore[assignment]
    with pytest.raises(SnapshotError, match="must be a plain tensor"):
        named_tensors(module, None)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"w": None}, "lack 'w'"),
        ({"x": np.zeros(1, np.float32)}, "have 'x', which the workload's model has not"),
        ({"w": np.zeros((3, 2), np.float32)}, r"'w' has shape \(3, 2\); the workload's model has \(2, 3\)"),
        ({"w": np.zeros((2, 3), np.float64)}, "'w' is float64; the workload's model has float32"),
    ],
)
def test_a_snapshot_of_another_model_is_refused_by_entry(change: dict[str, Any], sentence: str) -> None:
    expected = {"w": np.zeros((2, 3), np.float32), "b": np.zeros(3, np.float32)}
    tensors = {key: value for key, value in {**expected, **change}.items() if value is not None}
    with pytest.raises(SnapshotError, match=sentence):
        require_same_entries(tensors, expected)
