"""A Deep Speech network in Flax; see `deepspeech.py`. Shapes: B batch, N samples, T frames, D width."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from timetrial.engine.spec import ParameterType
from timetrial.workloads.ctc_jax import ctc_loss, ctc_score
from timetrial.workloads.models.deepspeech import LAYER_NORM_EPSILON, DeepSpeech
from timetrial.workloads.models.dropout_jax import Dropout
from timetrial.workloads.models.lstm_jax import LSTM, lstm_from_torch
from timetrial.workloads.models.masked_batch_norm_jax import BatchNorm, batch_norm_from_torch
from timetrial.workloads.models.offset_layer_norm_jax import LayerNorm
from timetrial.workloads.models.speech_features_jax import log_mel, spec_augment
from timetrial.workloads.models.subsampling_jax import Subsample, subsample_from_torch, xavier_uniform

Speech = tuple[Array, Array]  # audio or logits, and padding: 1.0 where there is nothing, else 0.0

ACTIVATIONS: Mapping[str, Callable[[Array], Array]] = {"relu": nn.relu, "tanh": nn.tanh}
dense = partial(nn.Dense, kernel_init=xavier_uniform)
layer_norm = partial(LayerNorm, LAYER_NORM_EPSILON)


class BatchRNN(nn.Module):
    """Norm and a bidirectional LSTM."""

    config: DeepSpeech

    @nn.compact
    def __call__(self, x_BTD: Array, padding_BT: Array, use_running_average_bn: bool) -> Array:
        if self.config.layer_norm:
            x_BTD = layer_norm(name="LayerNorm_0")(x_BTD)
        else:
            x_BTD = BatchNorm(self.config.batch_norm_decay, name="BatchNorm_0")(
                x_BTD, padding_BT, use_running_average_bn
            )
        out: Array = LSTM(self.config.width // 2)(x_BTD, padding_BT)
        return out


class FeedForwardModule(nn.Module):
    """Norm, a linear layer and an activation."""

    config: DeepSpeech

    @nn.compact
    def __call__(
        self,
        x_BTD: Array,
        padding_BT: Array,
        use_running_average_bn: bool,
        dropout_rate: float | Array,
        train: bool,
    ) -> Array:
        if self.config.layer_norm:
            x_BTD = layer_norm(name="LayerNorm_0")(x_BTD)
        else:
            x_BTD = BatchNorm(self.config.batch_norm_decay, name="BatchNorm_0")(
                x_BTD, padding_BT, use_running_average_bn
            )
        x_BTD = ACTIVATIONS[self.config.activation](dense(self.config.width)(x_BTD))
        return Dropout()(x_BTD * (1 - padding_BT)[..., None], dropout_rate, train=train)


class Network(nn.Module):
    """Audio (B, N) and its padding to logits (B, T, vocabulary) and their frames' padding (B, T)."""

    config: DeepSpeech

    @nn.compact
    def __call__(
        self,
        audio_BN: Array,
        padding_BN: Array,
        use_running_average_bn: bool,
        dropout_rate: float | Array,
        train: bool,
    ) -> Speech:
        config = self.config
        features_BTF, padding_BT = log_mel(config.features, audio_BN, padding_BN)
        if train:
            rng = self.make_rng("dropout")
            features_BTF = spec_augment(config.spec_augment, features_BTF, padding_BT, rng)
        subsample = Subsample(
            config.subsampling_channels, config.width, ACTIVATIONS[config.activation], name="Subsample_0"
        )
        x_BTD, padding_BT = subsample(features_BTF, padding_BT)
        x_BTD = Dropout()(x_BTD, dropout_rate, train=train)
        for _ in range(config.num_lstms):
            y_BTD = BatchRNN(config)(x_BTD, padding_BT, use_running_average_bn)
            x_BTD = x_BTD + y_BTD if config.residual else y_BTD
        for _ in range(config.num_feed_forward):
            layer = FeedForwardModule(config)
            y_BTD = layer(x_BTD, padding_BT, use_running_average_bn, dropout_rate, train)
            x_BTD = x_BTD + y_BTD if config.residual else y_BTD
        if not config.layer_norm:
            x_BTD = layer_norm(name="LayerNorm_0")(x_BTD)
        return dense(config.vocabulary, name="Dense_0")(x_BTD), padding_BT


def _type_of(path: tuple[Any, ...], leaf: Any) -> ParameterType:
    module, name = path[-2].key, path[-1].key
    if module.startswith("LayerNorm"):
        return ParameterType.LAYER_NORM_SCALE if name == "scale" else ParameterType.LAYER_NORM_BIAS
    if module.startswith("BatchNorm"):
        return ParameterType.BATCH_NORM_SCALE if name == "scale" else ParameterType.BATCH_NORM_BIAS
    if module.startswith("Conv") and name == "kernel":
        return ParameterType.CONV_WEIGHT
    return ParameterType.BIAS if name == "bias" else ParameterType.WEIGHT


class Program:
    """The JaxProgram of a Deep Speech network. `inputs` of a batch are audio (B, N) and its padding (B, N).

    The model state are the batch norms' running averages; with layer norms there is none.
    """

    output_parameters = frozenset({"Dense_0"})
    loss = staticmethod(ctc_loss)
    score = staticmethod(ctc_score)

    def __init__(self, config: DeepSpeech) -> None:
        self.config = config
        self.module = Network(config)
        params, _ = jax.eval_shape(self.init, np.zeros(2, np.uint32))
        self.parameter_types: Mapping[str, Any] = jax.tree_util.tree_map_with_path(_type_of, params)

    def init(self, rng: Array) -> tuple[Any, Any | None]:
        # No parameter depends on the audio's length; one frame is the least.
        audio = jnp.zeros((1, self.config.features.frame_length), jnp.float32)
        start = partial(self.module.init, use_running_average_bn=True, dropout_rate=0.0, train=False)
        state = dict(jax.jit(start)(rng, audio, jnp.zeros_like(audio)))
        return state.pop("params"), state or None

    def logits(
        self,
        params: Any,
        model_state: Any | None,
        batch: Mapping[str, Speech],
        *,
        train: bool,
        update_batch_norm: bool,
        use_running_average_bn: bool,
        rng: Array,
        dropout_rate: float | Array,
    ) -> tuple[Speech, Any | None]:
        """Logits (B, T, vocabulary) and their frames' padding (B, T); and the new model state."""
        audio, padding = batch["inputs"]
        logits, new_state = self.module.apply(
            {"params": params, **(model_state or {})},
            audio,
            padding,
            use_running_average_bn,
            dropout_rate,
            train,
            rngs={"dropout": rng},
            mutable=["batch_stats"],
        )
        return logits, dict(new_state) if update_batch_norm and model_state is not None else model_state

    def from_torch(self, state_dict: Mapping[str, Any]) -> tuple[Any, Any | None]:
        """Parameters and model state from the torch module's state dict, each weight mapped once."""
        source = {name: np.asarray(tensor) for name, tensor in state_dict.items()}
        params: dict[str, Any] = {
            "Subsample_0": subsample_from_torch(source, "subsample"),
            "Dense_0": _dense(source, "lin"),
        }
        if not self.config.layer_norm:
            params["LayerNorm_0"] = _layer_norm(source, "ln")
        statistics: dict[str, Any] = {}
        layers = {f"BatchRNN_{i}": f"lstms.{i}" for i in range(self.config.num_lstms)}
        layers |= {f"FeedForwardModule_{i}": f"ffns.{i}" for i in range(self.config.num_feed_forward)}
        for scope, name in layers.items():
            if self.config.layer_norm:
                params[scope] = {"LayerNorm_0": _layer_norm(source, f"{name}.norm")}
            else:
                norm, averages = batch_norm_from_torch(source, f"{name}.norm")
                params[scope], statistics[scope] = {"BatchNorm_0": norm}, {"BatchNorm_0": averages}
            if name.startswith("lstms"):
                params[scope]["LSTM_0"] = lstm_from_torch(source, f"{name}.lstm")
            else:
                params[scope]["Dense_0"] = _dense(source, f"{name}.lin")
        state = {"batch_stats": statistics} if statistics else None
        return jax.tree.map(jnp.asarray, params), jax.tree.map(jnp.asarray, state)


def program(config: DeepSpeech) -> Program:
    """The program of this configuration."""
    return Program(config)


def _dense(source: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {"kernel": source[f"{name}.weight"].T, "bias": source[f"{name}.bias"]}


def _layer_norm(source: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {"scale": source[f"{name}.scale"], "bias": source[f"{name}.bias"]}
