"""The workload object of a JAX submission: a program (model file) behind AlgoPerf's workload interface."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from flax import traverse_util

from timetrial.engine.errors import SnapshotError
from timetrial.engine.facts import JaxDecoder, JaxProgram, WorkloadFacts
from timetrial.engine.spec import ForwardPassMode, LossType, ShapeTuple
from timetrial.engine.workload import FactsWorkload


class JaxWorkload(FactsWorkload):
    """Parameters are a nested dict, replicated over the mesh of all local devices."""

    def __init__(self, facts: WorkloadFacts, *, sharding: jax.sharding.Sharding, **limits: Any) -> None:
        super().__init__(facts, **limits)
        self._program: JaxProgram = facts.programs["jax"](facts.model)
        self._sharding = sharding
        self._init = jax.jit(self._program.init, out_shardings=sharding)
        self._score = jax.jit(self._score_batch)

    def init_model_fn(self, rng: Any) -> tuple[Any, Any | None]:
        params, model_state = self._init(np.asarray(rng, np.uint32))
        self._shapes = jax.tree.map(lambda value: ShapeTuple(value.shape), params)
        self._types = dict(self._program.parameter_types)
        return params, model_state

    def model_fn(
        self,
        params: Any,
        augmented_and_preprocessed_input_batch: Mapping[str, Any],
        model_state: Any | None,
        mode: ForwardPassMode,
        rng: Any,
        update_batch_norm: bool,
        dropout_rate: Any = None,
        use_running_average_bn: bool | None = None,
    ) -> tuple[Any, Any | None]:
        """Without `update_batch_norm` the running averages normalise, unless `use_running_average_bn` is False."""
        train = mode is ForwardPassMode.TRAIN
        rate = self.facts.default_dropout_rate if dropout_rate is None else dropout_rate
        running = not update_batch_norm if use_running_average_bn is None else use_running_average_bn
        return self._program.logits(
            params,
            model_state,
            augmented_and_preprocessed_input_batch,
            train=train,
            update_batch_norm=update_batch_norm,
            use_running_average_bn=running,
            rng=rng,
            dropout_rate=rate if train else 0.0,
        )

    def loss_fn(
        self,
        label_batch: Any,
        logits_batch: Any,
        mask_batch: Any | None = None,
        label_smoothing: Any = 0.0,
    ) -> dict[str, Any]:
        return self._program.loss(label_batch, logits_batch, mask_batch, label_smoothing)

    def output_activation_fn(self, logits_batch: Any) -> Any:
        if self.loss_type is LossType.CTC_LOSS:
            logits_batch, _ = logits_batch  # beside them is which frames are padding
        if self.loss_type in (LossType.SOFTMAX_CROSS_ENTROPY, LossType.CTC_LOSS):
            return jax.nn.softmax(logits_batch, axis=-1)
        if self.loss_type is LossType.SIGMOID_CROSS_ENTROPY:
            return jax.nn.sigmoid(logits_batch)
        return logits_batch

    def is_output_params(self, param_key: str) -> bool:
        return param_key in self._program.output_parameters

    def score(self, params: Any, model_state: Any | None, batch: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """The sufficient statistics of one evaluation batch."""
        statistics = self._score(params, model_state, dict(batch))
        return {name: np.asarray(value) for name, value in statistics.items()}

    def _score_batch(self, params: Any, model_state: Any | None, batch: Mapping[str, Any]) -> dict[str, Any]:
        no_key = np.zeros(2, np.uint32)  # nothing is drawn in an evaluation
        logits, _ = self.model_fn(params, batch, model_state, ForwardPassMode.EVAL, no_key, False)
        statistics = self._program.score(batch, logits)
        if isinstance(self._program, JaxDecoder):
            statistics = statistics | self._program.decode(params, model_state, batch)
        return statistics


def named_tensors(params: Any, model_state: Any | None) -> dict[str, np.ndarray]:
    """Parameters and model state as NumPy arrays, named by their paths; SnapshotError for any other leaf."""
    tensors = {}
    for name, value in _flat(params, model_state).items():
        if not (
            type(value) is np.ndarray
            or (isinstance(value, jax.Array) and not isinstance(value, jax.core.Tracer))
        ):
            raise SnapshotError(f"{name!r} is a {type(value).__qualname__}; it must be a plain array")
        tensors[name] = np.asarray(value, order="C")
    return tensors


def load_tensors(
    params: Any, model_state: Any | None, tensors: Mapping[str, np.ndarray]
) -> tuple[Any, Any | None]:
    """Trees like the given ones, holding the named tensors, placed like the old ones."""
    old = _flat(params, model_state)
    new = {name: jax.device_put(tensors[name], value.sharding) for name, value in old.items()}
    trees = traverse_util.unflatten_dict(new, sep="/")
    return trees["params"], trees.get("state")


def _flat(params: Any, model_state: Any | None) -> dict[str, Any]:
    trees = {"params": params} | ({} if model_state is None else {"state": model_state})
    try:
        flat: dict[str, Any] = traverse_util.flatten_dict(trees, sep="/")
    except (AttributeError, TypeError) as error:
        raise SnapshotError(
            "update_params returned parameters that are not a nested dict of arrays"
        ) from error
    return flat
