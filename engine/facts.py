"""What a workload's page states: its facts, and the parts that a race assembles from it.

A page is framework-free: it names a model's configuration and, per framework, the function that imports the
model file and returns its program. Variants are `dataclasses.replace` of a page's record.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np

from timetrial.engine.spec import LossType, ParameterType

Framework = Literal["torch", "jax"]
Split = Literal["eval_train", "validation", "test"]

# Keys `inputs`, `targets`, whatever else a metric needs of each example and, where rows are padding, `weights`
# (1 = counts, 0 = padding). C-contiguous; images NHWC float32, class labels int32, tokens int32. Arrays of
# NumPy or, where batches are made on a GPU, anything that DLPack can share.
NumpyBatch = dict[str, np.ndarray]
# The same, where a value may also be a (named) tuple of arrays: speech with its padding, a batch of graphs.
Batch = Mapping[str, Any]
# Of a split: sums over all its examples (float), and arrays of which every example has a row, in storage order.
Statistics = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Metric:
    """The metric that decides: its column is `validation/<name>`."""

    name: str
    better: Literal["higher", "lower"]

    def reached(self, value: float, target: float) -> bool:
        """Whether `value` reaches `target`; equality does, NaN does not."""
        return value >= target if self.better == "higher" else value <= target


# What this process has used of the workloads' fused operators: of each, which form ran, how, and if not fused, why.
KernelUses = Callable[[], dict[str, list[str]]]


@dataclass(frozen=True, kw_only=True)
class Order:
    """Which training batches a racer sees: a pure function of the first five numbers.

    `batch_size` is global; rank r of `world_size` receives the r-th contiguous share of each global batch.
    Every rank therefore sees the same order, and `first_batch` resumes it anywhere. `gpu` says where batches may
    be made: on this GPU, or on the host where it is None.
    """

    batch_size: int
    seed: int
    first_batch: int = 0
    rank: int = 0
    world_size: int = 1
    gpu: int | None = None

    def __post_init__(self) -> None:
        if self.batch_size % self.world_size:
            raise ValueError(
                f"batch_size {self.batch_size} must be a multiple of the {self.world_size} ranks or devices"
            )


class TorchProgram(Protocol):
    """A model in torch. `*_torch.py` files under `workloads/models` return one from `program(config)`."""

    parameter_types: Mapping[str, ParameterType]  # by `named_parameters` name, declared by the model's author
    output_parameters: frozenset[str]  # names that belong to the output layer

    def module(self) -> Any:
        """A fresh nn.Module on the CPU, initialised from torch's global generator; parameters float32."""

    def logits(self, module: Any, batch: Mapping[str, Any], *, dropout_rate: float) -> Any:
        """Call `module` (perhaps wrapped or compiled) on the batch; its train/eval mode is already set."""

    def loss(self, labels: Any, logits: Any, mask: Any | None, label_smoothing: float) -> dict[str, Any]:
        """`summed` and `n_valid_examples` (scalars) and `per_example` (1-D)."""

    def score(self, batch: Mapping[str, Any], logits: Any) -> dict[str, Any]:
        """Sufficient statistics of the metrics.

        Scalars add up over batches (float64 on the host). Arrays are joined along their first axis, which has
        the rows of the batch, padding included, in every batch of one shape.
        """


@runtime_checkable
class TorchDecoder(Protocol):
    """A TorchProgram whose metrics need what no forward pass gives, such as translations."""

    def decode(self, module: Any, batch: Mapping[str, Any]) -> dict[str, Any]:
        """More statistics, as from `score`; the module is in evaluation mode."""


class JaxProgram(Protocol):
    """A model in JAX (Flax linen). `*_jax.py` files under `workloads/models` return one from `program(config)`."""

    parameter_types: Mapping[str, Any]  # nested like the parameters, leaves ParameterType
    output_parameters: frozenset[str]  # top-level keys of the output layer

    def init(self, rng: Any) -> tuple[Any, Any | None]:
        """Parameters (nested dict, float32) and model state (mutable collections) or None."""

    def logits(
        self,
        params: Any,
        model_state: Any | None,
        batch: Mapping[str, Any],
        *,
        train: bool,
        update_batch_norm: bool,
        use_running_average_bn: bool,
        rng: Any,
        dropout_rate: Any,
    ) -> tuple[Any, Any | None]:
        """Logits and the new model state."""

    def loss(self, labels: Any, logits: Any, mask: Any | None, label_smoothing: Any) -> dict[str, Any]:
        """As in `TorchProgram`."""

    def score(self, batch: Mapping[str, Any], logits: Any) -> dict[str, Any]:
        """As in `TorchProgram`; traced by jit."""

    def from_torch(self, state_dict: Mapping[str, Any]) -> tuple[Any, Any | None]:
        """Parameters and model state from the torch module's state dict, each weight mapped once."""


@runtime_checkable
class JaxDecoder(Protocol):
    """A JaxProgram whose metrics need what no forward pass gives, such as translations."""

    def decode(self, params: Any, model_state: Any | None, batch: Mapping[str, Any]) -> dict[str, Any]:
        """More statistics, as from `score`; traced by jit."""


class EvaluationBatches(Protocol):
    """Every example of a split once, in storage order; the last batch padded to the size with weights 0."""

    def __call__(
        self, folder: Path, split: Split, batch_size: int, gpu: int | None = None
    ) -> Iterable[Batch]: ...


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """Where a workload's examples come from: fetched from a registry, or converted from the owner's files.

    `prepare(folder, source)` fetches or converts once what then lies in `folder`/training/NAME and
    `folder`/evaluation/NAME; `source` is the folder of the owner's files, None where there are none to give.
    """

    name: str
    version: int  # of what is stored: another version is prepared anew
    licence: str
    package: str | None  # what is fetched where no `source` is given; None: the owner's files must be
    owner_files: str | None  # what `source` must hold; None: nothing but the package will do
    prepare: Callable[[Path, Path | None], None]  # DataError
    disk_need: Callable[[Path | None], int]  # bytes that preparing writes at most, downloads included
    training_batches: Callable[[Path, Order], Iterator[Batch]]  # endless
    evaluation_batches: EvaluationBatches


@dataclass(frozen=True, kw_only=True)
class WorkloadFacts:
    """One workload. Times are in seconds and sizes in examples unless a name says otherwise.

    A workload of the `algoperf` suite has its budget in seconds. A `pocket` workload has it in steps of the
    reference baseline: a calibration on the machine at hand turns `budget_steps` and `eval_period_steps`
    into seconds (see `calibration.py`).
    """

    name: str
    base: str  # the AlgoPerf workload whose batch size a submission is asked for
    suite: Literal["algoperf", "pocket"]
    summary: str  # one line: data, model
    num_parameters: int
    dataset: Dataset
    loss_type: LossType
    metric: Metric
    validation_target: float
    test_target: float | None
    num_train_examples: int
    num_eval_train_examples: int
    num_validation_examples: int
    num_test_examples: int | None
    eval_batch_size: int
    step_hint: int
    batch_ratio: Fraction = Fraction(1)  # this workload's batch size over the base workload's
    max_allowed_runtime_sec: float | None = None
    eval_period_time_sec: float | None = None
    budget_steps: int | None = None
    eval_period_steps: int | None = None
    default_dropout_rate: float = 0.0
    model: Any  # a frozen dataclass
    programs: Mapping[Framework, Callable[[Any], Any]]  # TorchProgram or JaxProgram of `model`
    # Named metrics of a split, given the folder of the prepared data, which holds the tokenizer where there is one.
    metrics: Callable[[Statistics, Path], dict[str, float]]

    def __post_init__(self) -> None:
        in_seconds = (self.max_allowed_runtime_sec, self.eval_period_time_sec)
        in_steps = (self.budget_steps, self.eval_period_steps)
        given = in_steps if self.suite == "pocket" else in_seconds
        absent = in_seconds if self.suite == "pocket" else in_steps
        if None in given or absent != (None, None):
            unit = "steps" if self.suite == "pocket" else "seconds"
            raise ValueError(f"{self.name}: a {self.suite} workload states its budget and period in {unit}")

    def batch_size(self, of_base: int) -> int:
        """This workload's global batch size, from the one a submission asks for on the base workload."""
        size = of_base * self.batch_ratio
        if size.denominator != 1 or size < 1:
            raise ValueError(f"{self.name}: {of_base} times {self.batch_ratio} is no whole batch size")
        return int(size)
