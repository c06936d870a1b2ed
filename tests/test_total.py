"""What a split's statistics are made of: sums and rows."""

import numpy as np
import pytest

from timetrial.engine.total import Total


def test_scalars_add_up_in_float64_and_rows_are_joined_in_order():
    total = Total()
    for i in range(3):
        rows = np.full((2, 2), i, np.int32)
        total.add({"loss": np.float32(2.0**24 if i == 0 else 1.0), "tokens": rows})
    statistics = total.statistics()
    assert statistics["loss"] == 2.0**24 + 2.0  # float32 would still hold 2 ** 24
    assert statistics["tokens"].dtype == np.int32
    assert statistics["tokens"][:, 0].tolist() == [0, 0, 1, 1, 2, 2]


def test_rows_of_other_shapes_are_refused():
    total = Total()
    total.add({"tokens": np.zeros((2, 3))})
    total.add({"tokens": np.zeros((2, 4))})
    with pytest.raises(ValueError, match="dimension"):
        total.statistics()
