"""A Deep Speech network in torch; see `deepspeech.py`. Shapes: B batch, N samples, T frames, D width."""

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from timetrial.engine.spec import ParameterType
from timetrial.workloads.ctc_torch import ctc_loss, ctc_score
from timetrial.workloads.models.deepspeech import LAYER_NORM_EPSILON, DeepSpeech
from timetrial.workloads.models.lstm_torch import BiLSTM
from timetrial.workloads.models.masked_batch_norm_torch import MaskedBatchNorm
from timetrial.workloads.models.offset_layer_norm_torch import OffsetLayerNorm
from timetrial.workloads.models.speech_features_torch import LogMelFeatures, spec_augment
from timetrial.workloads.models.subsampling_torch import Subsampling, xavier_layer

Speech = tuple[Tensor, Tensor]  # audio or logits, and padding: 1.0 where there is nothing, else 0.0

ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {"relu": F.relu, "tanh": torch.tanh}


def norm(config: DeepSpeech) -> nn.Module:
    """The norm before each layer."""
    if config.layer_norm:
        return OffsetLayerNorm(config.width, LAYER_NORM_EPSILON)
    return MaskedBatchNorm(config.width, config.batch_norm_decay)


def normalised(layer: nn.Module, x_BTD: Tensor, padding_BT: Tensor) -> Tensor:
    """What a norm makes of x; batch norm alone has to know the padding."""
    out: Tensor = layer(x_BTD, padding_BT) if isinstance(layer, MaskedBatchNorm) else layer(x_BTD)
    return out


class Recurrent(nn.Module):
    """Norm and a bidirectional LSTM."""

    def __init__(self, config: DeepSpeech) -> None:
        super().__init__()
        self.norm = norm(config)
        self.lstm = BiLSTM(config.width, config.width // 2)

    def forward(self, x_BTD: Tensor, padding_BT: Tensor) -> Tensor:
        out: Tensor = self.lstm(normalised(self.norm, x_BTD, padding_BT), padding_BT)
        return out


class FeedForward(nn.Module):
    """Norm, a linear layer and an activation."""

    def __init__(self, config: DeepSpeech) -> None:
        super().__init__()
        self.activation = ACTIVATIONS[config.activation]
        self.norm = norm(config)
        self.lin = xavier_layer(config.width, config.width)

    def forward(self, x_BTD: Tensor, padding_BT: Tensor, dropout_rate: float) -> Tensor:
        x_BTD = self.activation(self.lin(normalised(self.norm, x_BTD, padding_BT)))
        return F.dropout(x_BTD * (1 - padding_BT)[..., None], dropout_rate, self.training)


class Network(nn.Module):
    """Audio (B, N) and its padding to logits (B, T, vocabulary) and their frames' padding (B, T)."""

    def __init__(self, config: DeepSpeech) -> None:
        super().__init__()
        self.config = config
        self.features = LogMelFeatures(config.features)
        activation = ACTIVATIONS[config.activation]
        mel_bins, channels = config.features.mel_bins, config.subsampling_channels
        self.subsample = Subsampling(mel_bins, channels, config.width, activation)
        self.lstms = nn.ModuleList(Recurrent(config) for _ in range(config.num_lstms))
        self.ffns = nn.ModuleList(FeedForward(config) for _ in range(config.num_feed_forward))
        self.ln = None if config.layer_norm else OffsetLayerNorm(config.width, LAYER_NORM_EPSILON)
        self.lin = xavier_layer(config.width, config.vocabulary)

    def forward(self, audio_BN: Tensor, padding_BN: Tensor, dropout_rate: float = 0.0) -> Speech:
        features_BTF, padding_BT = self.features(audio_BN, padding_BN)
        if self.training:
            features_BTF = spec_augment(self.config.spec_augment, features_BTF, padding_BT)
        x_BTD, padding_BT = self.subsample(features_BTF, padding_BT)
        x_BTD = F.dropout(x_BTD, dropout_rate, self.training)
        for layer in self.lstms:
            y_BTD = layer(x_BTD, padding_BT)
            x_BTD = x_BTD + y_BTD if self.config.residual else y_BTD
        for layer in self.ffns:
            y_BTD = layer(x_BTD, padding_BT, dropout_rate)
            x_BTD = x_BTD + y_BTD if self.config.residual else y_BTD
        if self.ln is not None:
            x_BTD = self.ln(x_BTD)
        return self.lin(x_BTD), padding_BT


def _parameter_types(network: nn.Module) -> dict[str, ParameterType]:
    types: dict[str, ParameterType] = {}
    for path, module in network.named_modules():
        for leaf, _ in module.named_parameters(recurse=False):
            types[f"{path}.{leaf}"] = _type_of(module, leaf)
    return types


def _type_of(module: nn.Module, leaf: str) -> ParameterType:
    """Of a parameter that is the module's own."""
    bias = leaf.startswith("bias")
    if isinstance(module, OffsetLayerNorm):
        return ParameterType.LAYER_NORM_BIAS if bias else ParameterType.LAYER_NORM_SCALE
    if isinstance(module, MaskedBatchNorm):
        return ParameterType.BATCH_NORM_BIAS if bias else ParameterType.BATCH_NORM_SCALE
    if bias:
        return ParameterType.BIAS
    return ParameterType.CONV_WEIGHT if isinstance(module, nn.Conv2d) else ParameterType.WEIGHT


class Program:
    """The TorchProgram of a Deep Speech network. `inputs` of a batch are audio (B, N) and its padding (B, N)."""

    output_parameters = frozenset({"lin.weight", "lin.bias"})
    loss = staticmethod(ctc_loss)
    score = staticmethod(ctc_score)

    def __init__(self, config: DeepSpeech) -> None:
        self.config = config
        with torch.device("meta"):  # names only: draws no random numbers and takes no memory
            self.parameter_types: Mapping[str, ParameterType] = _parameter_types(Network(config))

    def module(self) -> nn.Module:
        return Network(self.config)

    def logits(self, module: nn.Module, batch: Mapping[str, Speech], *, dropout_rate: float) -> Speech:
        """Logits (B, T, vocabulary) and their frames' padding (B, T)."""
        audio, padding = batch["inputs"]
        logits: Speech = module(audio, padding, dropout_rate)
        return logits


def program(config: DeepSpeech) -> Program:
    """The program of this configuration."""
    return Program(config)
