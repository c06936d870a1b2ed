"""Every model compiles whole, its training step included, and only once.

By default small models of the base workloads are traced by Dynamo and AOTAutograd, which is where graphs break, and not
lowered to machine code; the others, full-size ones and what goes through Inductor are marked slow.
`benchmarks/steps.py` runs all full-size steps.
"""

from dataclasses import replace

import jax
import optax
import pytest
from compiled_whole import assert_compiles_whole
from small_models import affordable, small
from workload_batches import random_batch
from workload_cases import workloads

from timetrial.engine.algoperf_jax import get_replicate_sharding
from timetrial.engine.workload_jax import JaxWorkload
from timetrial.submissions.training_jax import make_train_step
from timetrial.workloads import SUITES, WORKLOADS

BATCH_SIZE = 4
LARGE = [name for name, facts in WORKLOADS.items() if small(facts.model) != facts.model]


@pytest.mark.parametrize("name", workloads(SUITES["variants"] + SUITES["pocket"]))
def test_the_loss_and_its_gradient_compile_whole_in_torch(name):
    assert_compiles_whole(name, small(WORKLOADS[name].model), "aot_eager")


@pytest.mark.slow
@pytest.mark.parametrize("name", LARGE)
def test_full_size_models_compile_whole_in_torch(name):
    assert_compiles_whole(name, affordable(WORKLOADS[name].model), "aot_eager")


@pytest.mark.slow
@pytest.mark.parametrize("name", WORKLOADS)
@pytest.mark.filterwarnings("ignore")  # of Inductor's own
def test_inductor_makes_code_of_every_small_model(name):
    assert_compiles_whole(name, small(WORKLOADS[name].model), "inductor")


@pytest.mark.slow
@pytest.mark.parametrize("name", WORKLOADS)
def test_the_training_step_compiles_once_in_jax(name):
    facts = replace(WORKLOADS[name], model=small(WORKLOADS[name].model))
    workload = JaxWorkload(facts, sharding=get_replicate_sharding())
    key = jax.random.key_data(jax.random.key(0))
    shapes = jax.eval_shape(facts.programs["jax"](facts.model).init, key)
    params, state = jax.tree.map(lambda leaf: jax.numpy.zeros(leaf.shape, leaf.dtype), shapes)
    optimizer = optax.sgd(0.1)
    step = make_train_step(workload, optimizer, None)
    params, state, optimizer_state = jax.device_put(
        (params, state, optimizer.init(params)), get_replicate_sharding()
    )
    batch = random_batch(facts.model, BATCH_SIZE)
    for seed in range(3):
        rng = jax.random.key_data(jax.random.key(seed))
        optimizer_state, params, state, _, _ = step(optimizer_state, params, state, batch, rng)
    assert step._cache_size() == 1
