"""Compiles one training step for H100s that are not here: `python tests/h100_step.py WORKLOAD DEVICES`.

Prints a line of JSON: bytes of memory of one device, and what the devices send each other. A process of its own, for
XLA ends the one it is in where it fails.
"""

import json
import re
import sys
from dataclasses import replace
from unittest import mock

import jax
import numpy as np
from small_models import affordable
from workload_batches import random_batch

from timetrial.engine import algoperf_jax
from timetrial.engine.workload_jax import JaxWorkload
from timetrial.kernels import ahead_of_time_jax
from timetrial.submissions.nadamw.nadamw_jax import nadamw
from timetrial.submissions.nadamw.self_tuning import HYPERPARAMETERS
from timetrial.submissions.training_jax import make_train_step
from timetrial.workloads import WORKLOADS

EXAMPLES = 4  # on each device
COLLECTIVE = r" (all-reduce|all-gather|all-to-all|reduce-scatter|collective-permute)(?:-start)?\("
FEW = {"num_layers": 1, "depth": 1, "rounds": 1, "stage_sizes": (1, 1, 1, 1), "num_lstms": 1}


def shallow(model):
    """The model in full width, since XLA's rules for a GPU fail at widths of a few, with few layers."""
    return replace(affordable(model), **{name: value for name, value in FEW.items() if hasattr(model, name)})


def structure(tree):
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), tree)


def main(name, devices):
    mesh = jax.sharding.Mesh(ahead_of_time_jax.h100s(devices), ("batch",))
    facts = replace(WORKLOADS[name], model=shallow(WORKLOADS[name].model))
    optimizer = nadamw(1e-3, b1=0.9, b2=0.999, weight_decay=0.1)
    with mock.patch.object(algoperf_jax, "get_mesh", lambda: mesh):
        workload = JaxWorkload(facts, sharding=algoperf_jax.get_replicate_sharding())
        step = make_train_step(workload, optimizer, HYPERPARAMETERS)
    key = np.zeros(2, np.uint32)
    params, model_state = jax.eval_shape(facts.programs["jax"](facts.model).init, key)
    state = (jax.eval_shape(optimizer.init, params), params, model_state)
    batch = structure(random_batch(facts.model, EXAMPLES * devices))
    compiled = step.lower(*state, batch, structure(key)).compile()
    memory = compiled.memory_analysis()
    result = {
        "state": sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state)),
        "aliased": memory.alias_size_in_bytes,
        "arguments": memory.argument_size_in_bytes,
        "kept": memory.temp_size_in_bytes,
        "collectives": sorted(set(re.findall(COLLECTIVE, compiled.as_text()))),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
