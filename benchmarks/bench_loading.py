"""How fast training batches come, without a device: the order alone, and each pocket workload's batches.

Workloads whose data is not prepared are skipped: `timetrial data prepare WORKLOAD`.
"""

from itertools import islice

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from timetrial.data_loading.batches import selections
from timetrial.engine.cli.places import data_folder
from timetrial.engine.errors import DataError
from timetrial.engine.facts import Order
from timetrial.submissions.batches import BATCH_SIZES
from timetrial.workloads import SUITES, WORKLOADS


def test_order_of_an_epoch(benchmark: BenchmarkFixture) -> None:
    """A permutation of 45,000 examples, in batches of 64."""
    per_epoch = 45_000 // 64
    order = selections(45_000, Order(batch_size=64, seed=0))
    benchmark(lambda: [None for _ in islice(order, per_epoch)])


@pytest.mark.parametrize("name", SUITES["pocket"])
def test_training_batch(benchmark: BenchmarkFixture, name: str) -> None:
    """The next batch, of the size that the baseline trains with; the slowest ones begin an epoch."""
    facts = WORKLOADS[name]
    order = Order(batch_size=facts.batch_size(BATCH_SIZES[facts.base]), seed=0)
    batches = facts.dataset.training_batches(data_folder(None), order)
    try:
        next(batches)
    except DataError as error:
        pytest.skip(str(error))
    benchmark.pedantic(lambda: next(batches), rounds=500)
    benchmark.extra_info["batch_size"] = order.batch_size
