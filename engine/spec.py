"""The submission API: the only file that an author of a submission needs to read.

A submission is a Python file with these module-level functions (AlgoPerf v0.6; arXiv 2306.07179, section 4):

    get_batch_size(workload_name) -> int
    init_optimizer_state(workload, model_params, model_state, hyperparameters, rng) -> optimizer_state
    update_params(workload, current_param_container, current_params_types, model_state, hyperparameters,
                  batch, loss_type, optimizer_state, eval_results, global_step, rng[, train_state])
        -> (optimizer_state, params, model_state)
    prepare_for_eval(the same without batch and train_state)          optional
        -> (optimizer_state, params, model_state)
    data_selection(workload, input_queue, optimizer_state, current_param_container, model_state,
                   hyperparameters, global_step, rng) -> batch

`update_params` and `prepare_for_eval` are called by keyword, the others by position. Charged to the
submission: `data_selection`, `update_params`, `prepare_for_eval`, compilation inside them, and every piece of
work they leave in flight. Not charged, but capped: import and `init_optimizer_state`.
"""

import abc
import enum
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol


class LossType(enum.Enum):
    """What `Workload.loss_fn` computes."""

    SOFTMAX_CROSS_ENTROPY = 0
    SIGMOID_CROSS_ENTROPY = 1
    MEAN_SQUARED_ERROR = 2
    CTC_LOSS = 3
    MEAN_ABSOLUTE_ERROR = 4


class ForwardPassMode(enum.Enum):
    """Whether `Workload.model_fn` trains or evaluates."""

    TRAIN = 0
    EVAL = 1


class ParameterType(enum.Enum):
    """The role of one parameter tensor; every workload declares one for each of its parameters."""

    WEIGHT = 0
    BIAS = 1
    CONV_WEIGHT = 2
    BATCH_NORM_SCALE = 3
    BATCH_NORM_BIAS = 4
    LAYER_NORM_SCALE = 5
    LAYER_NORM_BIAS = 6
    EMBEDDING = 7
    ATTENTION_Q = 8
    ATTENTION_K = 9
    ATTENTION_V = 10
    ATTENTION_OUT = 11
    ATTENTION_QKV = 12
    ATTENTION_KV = 13
    ATTENTION_BIAS = 14


class TrainingCompleteError(Exception):
    """Raised by `update_params` to end its own training: one last evaluation follows, and no restart."""


class ShapeTuple:
    """The shape of one parameter, as a leaf that tree functions do not descend into."""

    def __init__(self, shape_tuple: tuple[int, ...]) -> None:
        self.shape_tuple = tuple(shape_tuple)

    def __repr__(self) -> str:
        return f"ShapeTuple({self.shape_tuple})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ShapeTuple) and self.shape_tuple == other.shape_tuple

    def __hash__(self) -> int:
        return hash(self.shape_tuple)


# The names AlgoPerf gives to the arguments' types. A tensor is a torch.Tensor or a jax.Array.
Tensor = Any
RandomState = Any  # JAX: a threefry key, uint32[2]; torch: an int32 pair. Both as NumPy arrays.
Shape = tuple[int, ...]
ParameterShapeTree = dict[str, Any]
ParameterKey = str
ParameterContainer = Any  # JAX: nested dict of arrays; torch: nn.Module
ParameterTypeTree = dict[str, Any]
ModelAuxiliaryState = Any  # JAX: mutable collections such as batch statistics, or None; torch: None
OptimizerState = Any  # JAX: (pytree, update function); torch: dict
Hyperparameters = Any  # named tuple under external tuning, None under self-tuning
Timing = int
Steps = int
UpdateReturn = tuple[OptimizerState, ParameterContainer, ModelAuxiliaryState]
Batch = dict[str, Any]
EvalResults = list[tuple[int, dict[str, float]]]


class MetricsLogger(Protocol):
    """Where a submission may write scalars; they land in `measurements.csv`. The call's time is charged."""

    def append_scalar_metrics(
        self, metrics: Mapping[str, float], global_step: int, **unused: Any
    ) -> None: ...


class Workload(abc.ABC):
    """What a submission is told about the model it trains, and may call.

    Everything here is public to submissions. Times are in seconds of the machine at hand: on a pocket
    workload they come from a calibration, not from a table.
    """

    # Facts, equal in both frameworks.
    loss_type: LossType
    target_metric_name: str
    validation_target_value: float
    test_target_value: float | None
    num_train_examples: int
    num_eval_train_examples: int
    num_validation_examples: int
    num_test_examples: int | None
    eval_batch_size: int
    step_hint: int
    max_allowed_runtime_sec: float
    eval_period_time_sec: float

    @property
    @abc.abstractmethod
    def param_shapes(self) -> ParameterShapeTree:
        """Shapes of the parameters as `ShapeTuple` leaves; ValueError before `init_model_fn`."""

    @property
    @abc.abstractmethod
    def model_params_types(self) -> ParameterTypeTree:
        """The `ParameterType` of every parameter; ValueError before `init_model_fn`."""

    @property
    @abc.abstractmethod
    def metrics_logger(self) -> MetricsLogger | None:
        """The logger, or None on every rank but the first."""

    @abc.abstractmethod
    def has_reached_validation_target(self, eval_result: Mapping[str, float]) -> bool:
        """Whether these metrics reach the validation target (a value equal to it does)."""

    @abc.abstractmethod
    def has_reached_test_target(self, eval_result: Mapping[str, float]) -> bool:
        """Whether these metrics reach the test target (a value equal to it does)."""

    @abc.abstractmethod
    def is_output_params(self, param_key: ParameterKey) -> bool:
        """Whether this key belongs to the output layer."""

    @abc.abstractmethod
    def init_model_fn(self, rng: RandomState) -> tuple[ParameterContainer, ModelAuxiliaryState]:
        """Fresh parameters and model state."""

    @abc.abstractmethod
    def model_fn(
        self,
        params: ParameterContainer,
        augmented_and_preprocessed_input_batch: Batch,
        model_state: ModelAuxiliaryState,
        mode: ForwardPassMode,
        rng: RandomState,
        update_batch_norm: bool,
        dropout_rate: float = 0.0,
    ) -> tuple[Tensor, ModelAuxiliaryState]:
        """Logits (before the output activation) and the new model state."""

    @abc.abstractmethod
    def loss_fn(
        self,
        label_batch: Tensor,
        logits_batch: Tensor,
        mask_batch: Tensor | None = None,
        label_smoothing: float = 0.0,
    ) -> dict[str, Tensor]:
        """`summed` (scalar), `n_valid_examples` (scalar), `per_example` (1-D). Torch: of this rank only."""

    @abc.abstractmethod
    def output_activation_fn(self, logits_batch: Tensor) -> Tensor:
        """The activation that belongs to `loss_type`: softmax, sigmoid or none."""


InputQueue = Iterator[Batch]
InitOptimizerFn = Callable[..., OptimizerState]
UpdateParamsFn = Callable[..., UpdateReturn]
PrepareForEvalFn = Callable[..., UpdateReturn]
DataSelectionFn = Callable[..., Batch]
