"""A Conformer in torch; see `conformer.py`. Shapes: B batch, N samples, T frames, D width, H heads."""

from collections.abc import Callable, Mapping
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from timetrial.engine.spec import ParameterType
from timetrial.workloads.ctc_torch import ctc_loss, ctc_score
from timetrial.workloads.models.conformer import (
    LAYER_NORM_EPSILON,
    LONGEST_PERIOD,
    QUERY_SCALE,
    Conformer,
)
from timetrial.workloads.models.masked_batch_norm_torch import MaskedBatchNorm
from timetrial.workloads.models.offset_layer_norm_torch import OffsetLayerNorm
from timetrial.workloads.models.speech_features_torch import LogMelFeatures, spec_augment
from timetrial.workloads.models.subsampling_torch import Subsampling, xavier_layer

Speech = tuple[Tensor, Tensor]  # audio or logits, and padding: 1.0 where there is nothing, else 0.0

ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "swish": F.silu,
    "gelu": partial(F.gelu, approximate="tanh"),
}


def position_code(x_BTD: Tensor) -> Tensor:
    """What `conformer.position_code` says, (T, D), where x is and in its dtype: made anew for each batch's length."""
    frames, width = x_BTD.shape[1:]
    steps = torch.linspace(0, 1, width // 2, dtype=torch.float64, device=x_BTD.device)
    places = torch.arange(frames, dtype=torch.float64, device=x_BTD.device)
    angles = places[:, None] * torch.pow(LONGEST_PERIOD, -steps)
    return torch.cat((angles.sin(), angles.cos()), 1).to(x_BTD.dtype)


def layer_norm(width: int) -> OffsetLayerNorm:
    """Layer normalisation over the last axis."""
    return OffsetLayerNorm(width, LAYER_NORM_EPSILON)


class FeedForward(nn.Module):
    """Layer norm, D to the perceptron's width, activation, back to D."""

    def __init__(self, config: Conformer) -> None:
        super().__init__()
        self.activation = ACTIVATIONS[config.activation]
        self.ln = layer_norm(config.width)
        self.linear1 = xavier_layer(config.width, config.mlp_width)
        self.linear2 = xavier_layer(config.mlp_width, config.width)

    def forward(self, x_BTD: Tensor, mask_BT1: Tensor, dropout_rate: float) -> Tensor:
        hidden_BTM = self.activation(self.linear1(self.ln(x_BTD)))
        hidden_BTM = F.dropout(hidden_BTM, dropout_rate, self.training) * mask_BT1
        return F.dropout(self.linear2(hidden_BTM) * mask_BT1, dropout_rate, self.training)


class QueryScaler(nn.Module):
    """Multiplies each element of every head's query by log2(1 + e^scale)."""

    def __init__(self, head_width: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.zeros(head_width))

    def forward(self, q_BHTK: Tensor) -> Tensor:
        return q_BHTK * (QUERY_SCALE * F.softplus(self.scale))


class Attention(nn.Module):
    """Attention of all frames to those that are no padding, in several heads."""

    def __init__(self, config: Conformer) -> None:
        super().__init__()
        width = config.width
        self.num_heads, self.output_scale = config.num_heads, config.attention_scale
        self.query = xavier_layer(width, width)
        self.key = xavier_layer(width, width)
        self.value = xavier_layer(width, width)
        self.qs = QueryScaler(width // config.num_heads)
        self.out = xavier_layer(width, width)

    def forward(self, x_BTD: Tensor, padding_BT: Tensor) -> Tensor:
        q, k, v = (self._heads(layer(x_BTD)) for layer in (self.query, self.key, self.value))
        keys_BT = padding_BT == 0
        keys_BT = keys_BT | ~keys_BT.any(
            1, keepdim=True
        )  # where all is padding, attention to all of it is finite
        attended = F.scaled_dot_product_attention(self.qs(q), k, v, attn_mask=keys_BT[:, None, None, :])
        out: Tensor = self.out(self.output_scale * attended.transpose(1, 2).flatten(2))
        return out

    def _heads(self, x_BTD: Tensor) -> Tensor:
        """(B, T, D) to (B, H, T, D / H)."""
        heads: Tensor = x_BTD.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
        return heads


class SelfAttention(nn.Module):
    """Layer norm and attention."""

    def __init__(self, config: Conformer) -> None:
        super().__init__()
        self.ln = layer_norm(config.width)
        self.self_attention = Attention(config)

    def forward(self, x_BTD: Tensor, padding_BT: Tensor, dropout_rate: float) -> Tensor:
        return F.dropout(self.self_attention(self.ln(x_BTD), padding_BT), dropout_rate, self.training)


class DepthwiseConvolution(nn.Conv1d):
    """Of each feature on its own, over `kernel` frames; zeros beyond the ends; no bias."""

    def __init__(self, config: Conformer) -> None:
        width = config.width
        super().__init__(width, width, config.kernel, padding=config.kernel // 2, groups=width, bias=False)

    def reset_parameters(self) -> None:
        nn.init.xavier_uniform_(self.weight)


class ConvolutionBlock(nn.Module):
    """Layer norm, gated linear layer, depthwise convolution, batch norm, activation, linear layer."""

    def __init__(self, config: Conformer) -> None:
        super().__init__()
        width = config.width
        self.activation = ACTIVATIONS[config.activation]
        self.ln = layer_norm(width)
        self.lin1 = xavier_layer(width, width)
        self.lin2 = xavier_layer(width, width)
        self.conv1 = DepthwiseConvolution(config)
        self.bn = MaskedBatchNorm(width, config.batch_norm_decay)
        self.lin3 = xavier_layer(width, width)

    def forward(self, x_BTD: Tensor, padding_BT: Tensor, dropout_rate: float) -> Tensor:
        x_BTD = self.ln(x_BTD)
        gated_BTD = self.lin1(x_BTD) * self.lin2(x_BTD).sigmoid() * (1 - padding_BT)[..., None]
        x_BTD = self.conv1(gated_BTD.transpose(1, 2)).transpose(1, 2)
        x_BTD = self.lin3(self.activation(self.bn(x_BTD, padding_BT)))
        return F.dropout(x_BTD, dropout_rate, self.training)


class Block(nn.Module):
    """Half a perceptron, self-attention, a convolution and half a perceptron, each beside a shortcut."""

    def __init__(self, config: Conformer) -> None:
        super().__init__()
        self.ff1 = FeedForward(config)
        self.mhsa = SelfAttention(config)
        self.conv = ConvolutionBlock(config)
        self.ff2 = FeedForward(config)
        self.ln = layer_norm(config.width) if config.block_layer_norm else None

    def forward(self, x_BTD: Tensor, padding_BT: Tensor, dropout_rate: float) -> Tensor:
        mask_BT1 = (1 - padding_BT)[..., None]
        x_BTD = x_BTD + 0.5 * self.ff1(x_BTD, mask_BT1, dropout_rate)
        x_BTD = x_BTD + self.mhsa(x_BTD, padding_BT, dropout_rate)
        x_BTD = x_BTD + self.conv(x_BTD, padding_BT, dropout_rate)
        x_BTD = x_BTD + 0.5 * self.ff2(x_BTD, mask_BT1, dropout_rate)
        return x_BTD if self.ln is None else self.ln(x_BTD)


class Network(nn.Module):
    """Audio (B, N) and its padding to logits (B, T, vocabulary) and their frames' padding (B, T)."""

    def __init__(self, config: Conformer) -> None:
        super().__init__()
        self.config = config
        self.features = LogMelFeatures(config.features)
        self.subsample = Subsampling(
            config.features.mel_bins, config.subsampling_channels, config.width, F.relu
        )
        self.conformers = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.ln = layer_norm(config.width)
        self.lin = xavier_layer(config.width, config.vocabulary)

    def forward(self, audio_BN: Tensor, padding_BN: Tensor, dropout_rate: float = 0.0) -> Speech:
        features_BTF, padding_BT = self.features(audio_BN, padding_BN)
        if self.training:
            features_BTF = spec_augment(self.config.spec_augment, features_BTF, padding_BT)
        x_BTD, padding_BT = self.subsample(features_BTF, padding_BT)
        x_BTD = F.dropout(x_BTD + position_code(x_BTD), dropout_rate, self.training)
        for block in self.conformers:
            x_BTD = block(x_BTD, padding_BT, dropout_rate)
        return self.lin(self.ln(x_BTD)), padding_BT


_ATTENTION_WEIGHTS = {
    "query": ParameterType.ATTENTION_Q,
    "key": ParameterType.ATTENTION_K,
    "value": ParameterType.ATTENTION_V,
    "out": ParameterType.ATTENTION_OUT,
}


def _parameter_types(network: nn.Module) -> dict[str, ParameterType]:
    types: dict[str, ParameterType] = {}
    for path, module in network.named_modules():
        if isinstance(module, Attention):
            for name, kind in _ATTENTION_WEIGHTS.items():
                types[f"{path}.{name}.weight"] = kind
                types[f"{path}.{name}.bias"] = ParameterType.ATTENTION_BIAS
            types[f"{path}.qs.scale"] = ParameterType.WEIGHT
        elif isinstance(module, OffsetLayerNorm):
            types[f"{path}.scale"] = ParameterType.LAYER_NORM_SCALE
            types[f"{path}.bias"] = ParameterType.LAYER_NORM_BIAS
        elif isinstance(module, MaskedBatchNorm):
            types[f"{path}.weight"] = ParameterType.BATCH_NORM_SCALE
            types[f"{path}.bias"] = ParameterType.BATCH_NORM_BIAS
        elif isinstance(module, nn.Conv1d | nn.Conv2d):
            types[f"{path}.weight"] = ParameterType.CONV_WEIGHT
            if module.bias is not None:
                types[f"{path}.bias"] = ParameterType.BIAS
        elif isinstance(module, nn.Linear) and f"{path}.weight" not in types:
            types[f"{path}.weight"] = ParameterType.WEIGHT
            types[f"{path}.bias"] = ParameterType.BIAS
    return types


class Program:
    """The TorchProgram of a Conformer. `inputs` of a batch are audio (B, N) and its padding (B, N)."""

    output_parameters = frozenset({"lin.weight", "lin.bias"})
    loss = staticmethod(ctc_loss)
    score = staticmethod(ctc_score)

    def __init__(self, config: Conformer) -> None:
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


def program(config: Conformer) -> Program:
    """The program of this configuration."""
    return Program(config)
