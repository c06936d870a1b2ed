"""The framework-free half of the workload object that a submission receives."""

from collections.abc import Mapping
from typing import Any

from timetrial.engine.facts import Split, WorkloadFacts
from timetrial.engine.spec import MetricsLogger, Workload


class ScalarLog:
    """The metrics logger handed to submissions: keeps rows until the racer stands still."""

    def __init__(self) -> None:
        self._rows: list[tuple[int, dict[str, Any]]] = []

    def append_scalar_metrics(self, metrics: Mapping[str, Any], global_step: int, **unused: Any) -> None:
        """Keep one row. Values may be scalars still being computed; they are read when the racer stands still."""
        self._rows.append((int(global_step), dict(metrics)))

    def take(self) -> list[tuple[int, dict[str, float]]]:
        """All rows since the last call, as numbers."""
        rows, self._rows = self._rows, []
        return [(step, {name: float(value) for name, value in metrics.items()}) for step, metrics in rows]


class FactsWorkload(Workload):
    """`spec.Workload` as far as the facts determine it. `budget` and `period` are seconds of this machine."""

    def __init__(
        self,
        facts: WorkloadFacts,
        *,
        max_allowed_runtime_sec: float = float("inf"),
        eval_period_time_sec: float = float("inf"),
        metrics_logger: MetricsLogger | None = None,
    ) -> None:
        self.facts = facts
        self.loss_type = facts.loss_type
        self.target_metric_name = facts.metric.name
        self.validation_target_value = facts.validation_target
        self.test_target_value = facts.test_target
        self.num_train_examples = facts.num_train_examples
        self.num_eval_train_examples = facts.num_eval_train_examples
        self.num_validation_examples = facts.num_validation_examples
        self.num_test_examples = facts.num_test_examples
        self.eval_batch_size = facts.eval_batch_size
        self.step_hint = facts.step_hint
        self.max_allowed_runtime_sec = max_allowed_runtime_sec
        self.eval_period_time_sec = eval_period_time_sec
        self._metrics_logger = metrics_logger
        self._shapes: dict[str, Any] | None = None
        self._types: dict[str, Any] | None = None

    @property
    def metrics_logger(self) -> MetricsLogger | None:
        return self._metrics_logger

    @property
    def param_shapes(self) -> dict[str, Any]:
        if self._shapes is None:
            raise ValueError("param_shapes is known only after init_model_fn")
        return self._shapes

    @property
    def model_params_types(self) -> dict[str, Any]:
        if self._types is None:
            raise ValueError("model_params_types is known only after init_model_fn")
        return self._types

    def has_reached_validation_target(self, eval_result: Mapping[str, float]) -> bool:
        value = eval_result[f"validation/{self.facts.metric.name}"]
        return self.facts.metric.reached(value, self.facts.validation_target)

    def has_reached_test_target(self, eval_result: Mapping[str, float]) -> bool:
        if self.facts.test_target is None:
            return True
        return self.facts.metric.reached(
            eval_result[f"test/{self.facts.metric.name}"], self.facts.test_target
        )


def splits_of(facts: WorkloadFacts) -> tuple[Split, ...]:
    """The splits an evaluation goes through, in order."""
    return ("eval_train", "validation") + (() if facts.num_test_examples is None else ("test",))


# The prefix of each split's metrics in results and logs (AlgoPerf's).
PREFIX: dict[Split, str] = {"eval_train": "train", "validation": "validation", "test": "test"}
