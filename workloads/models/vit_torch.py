"""A vision transformer in torch; see `vit.py`. Shapes: B batch, N tokens, D width, M hidden width."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from timetrial.engine.spec import ParameterType
from timetrial.workloads.losses_torch import classification_score, softmax_cross_entropy
from timetrial.workloads.models.initializers_torch import lecun_normal_
from timetrial.workloads.models.vit import LAYER_NORM_EPSILON, LONGEST_PERIOD, MLP_BIAS_STD, ViT


def position_code(rows: int, columns: int, x_BND: Tensor) -> Tensor:
    """What `vit.position_code` says, (N, D), where x is and in its dtype: made anew for each batch's image size."""

    def waves(places: int) -> Tensor:
        angles = torch.arange(places, dtype=torch.float64, device=x_BND.device)[:, None] * frequencies
        return torch.cat((angles.sin(), angles.cos()), 1)

    steps = torch.linspace(0, 1, x_BND.shape[-1] // 4, dtype=torch.float64, device=x_BND.device)
    frequencies = torch.pow(LONGEST_PERIOD, -steps)
    of_column = waves(columns).expand(rows, -1, -1)
    of_row = waves(rows)[:, None].expand(-1, columns, -1)
    return torch.cat((of_column, of_row), -1).flatten(0, 1).to(x_BND.dtype)


def layer_norm(width: int) -> nn.LayerNorm:
    """Layer normalisation over the last axis."""
    return nn.LayerNorm(width, eps=LAYER_NORM_EPSILON)


def attention_layer(width: int) -> nn.Linear:
    """Xavier-uniform weight, zero bias."""
    layer = nn.Linear(width, width)
    nn.init.xavier_uniform_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def perceptron_layer(width_in: int, width_out: int) -> nn.Linear:
    """Xavier-uniform weight, tiny normal bias."""
    layer = nn.Linear(width_in, width_out)
    nn.init.xavier_uniform_(layer.weight)
    nn.init.normal_(layer.bias, std=MLP_BIAS_STD)
    return layer


class Attention(nn.Module):
    """Attention of the queries to the tokens, in several heads."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.query = attention_layer(width)
        self.key = attention_layer(width)
        self.value = attention_layer(width)
        self.out = attention_layer(width)

    def forward(self, queries_BQD: Tensor, tokens_BND: Tensor) -> Tensor:
        q = self._heads(self.query(queries_BQD))
        k, v = self._heads(self.key(tokens_BND)), self._heads(self.value(tokens_BND))
        attended = F.scaled_dot_product_attention(q, k, v)
        out: Tensor = self.out(attended.transpose(1, 2).flatten(2))
        return out

    def _heads(self, x_BND: Tensor) -> Tensor:
        """(B, N, D) to (B, heads, N, D / heads)."""
        heads: Tensor = x_BND.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
        return heads


class Perceptron(nn.Module):
    """D to M, GELU (tanh form), perhaps gated by itself, back to D."""

    def __init__(self, width: int, hidden: int, glu: bool) -> None:
        super().__init__()
        self.linear1 = perceptron_layer(width, hidden)
        self.glu_linear = perceptron_layer(hidden, hidden) if glu else None
        self.linear2 = perceptron_layer(hidden, width)

    def forward(self, x_BND: Tensor, dropout_rate: float) -> Tensor:
        hidden_BNM = F.gelu(self.linear1(x_BND), approximate="tanh")
        if self.glu_linear is not None:
            hidden_BNM = hidden_BNM * self.glu_linear(hidden_BNM)
        hidden_BNM = F.dropout(hidden_BNM, dropout_rate, self.training)
        return F.dropout(self.linear2(hidden_BNM), dropout_rate, self.training)


class Block(nn.Module):
    """Self-attention and perceptron, each beside a shortcut."""

    def __init__(self, config: ViT) -> None:
        super().__init__()
        self.post_ln = config.post_ln
        self.layer_norm0 = layer_norm(config.width)
        self.self_attention1 = Attention(config.width, config.num_heads)
        self.layer_norm2 = layer_norm(config.width)
        self.mlp3 = Perceptron(config.width, config.mlp_width, config.glu)

    def forward(self, x_BND: Tensor, dropout_rate: float) -> Tensor:
        if self.post_ln:
            y = F.dropout(self.self_attention1(x_BND, x_BND), dropout_rate, self.training)
            x_BND = self.layer_norm0(x_BND + y)
            normalised: Tensor = self.layer_norm2(x_BND + self.mlp3(x_BND, dropout_rate))
            return normalised
        y = self.layer_norm0(x_BND)
        x_BND = x_BND + F.dropout(self.self_attention1(y, y), dropout_rate, self.training)
        out: Tensor = x_BND + self.mlp3(self.layer_norm2(x_BND), dropout_rate)
        return out


class Encoder(nn.Module):
    """All blocks, and where these normalise before, a last layer norm."""

    def __init__(self, config: ViT) -> None:
        super().__init__()
        self.net = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.encoder_norm = None if config.post_ln else layer_norm(config.width)

    def forward(self, x_BND: Tensor, dropout_rate: float) -> Tensor:
        for block in self.net:
            x_BND = block(x_BND, dropout_rate)
        return x_BND if self.encoder_norm is None else self.encoder_norm(x_BND)


class AttentionPool(nn.Module):
    """A learned probe attends to the tokens; one perceptron follows (Zhai et al. 2022)."""

    def __init__(self, config: ViT) -> None:
        super().__init__()
        self.probe = nn.Parameter(torch.empty(1, 1, config.width))
        bound = (6 / (1 + config.width)) ** 0.5  # Xavier-uniform of a 1 by D matrix
        nn.init.uniform_(self.probe, -bound, bound)
        self.mha = Attention(config.width, config.num_heads)
        self.layer_norm = layer_norm(config.width)
        self.mlp = Perceptron(config.width, config.mlp_width, glu=False)

    def forward(self, tokens_BND: Tensor, dropout_rate: float) -> Tensor:
        """(B, N, D) to (B, D)."""
        x = self.mha(self.probe.expand(len(tokens_BND), -1, -1), tokens_BND)
        x = x + self.mlp(self.layer_norm(x), dropout_rate)
        out: Tensor = x[:, 0]
        return out


class Network(nn.Module):
    """Images (B, C, H, W) to logits (B, classes)."""

    def __init__(self, config: ViT) -> None:
        super().__init__()
        width = config.width
        self.pre_logits = nn.Linear(width, width)
        self.conv_patch_extract = nn.Conv2d(3, width, config.patch, config.patch)
        for layer in (self.pre_logits, self.conv_patch_extract):
            lecun_normal_(layer.weight)
            nn.init.zeros_(layer.get_parameter("bias"))
        self.encoder = Encoder(config)
        self.map = AttentionPool(config) if config.pooling == "map" else None
        self.head = nn.Linear(width, config.num_classes)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, x_BCHW: Tensor, dropout_rate: float = 0.0) -> Tensor:
        x_BDRC = self.conv_patch_extract(x_BCHW)  # R rows and C columns of patches
        x_BND = x_BDRC.flatten(2).transpose(1, 2)
        x_BND = x_BND + position_code(x_BDRC.shape[2], x_BDRC.shape[3], x_BND)
        x_BND = F.dropout(x_BND, dropout_rate, self.training)
        x_BND = self.encoder(x_BND, dropout_rate)
        x_BD = x_BND.mean(1) if self.map is None else self.map(x_BND, dropout_rate)
        out: Tensor = self.head(torch.tanh(self.pre_logits(x_BD)))
        return out


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
        elif isinstance(module, nn.LayerNorm):
            types[f"{path}.weight"] = ParameterType.LAYER_NORM_SCALE
            types[f"{path}.bias"] = ParameterType.LAYER_NORM_BIAS
        elif isinstance(module, nn.Conv2d):
            types[f"{path}.weight"] = ParameterType.CONV_WEIGHT
            types[f"{path}.bias"] = ParameterType.BIAS
        elif isinstance(module, nn.Linear) and f"{path}.weight" not in types:
            types[f"{path}.weight"] = ParameterType.WEIGHT
            types[f"{path}.bias"] = ParameterType.BIAS
        elif isinstance(module, AttentionPool):
            types[f"{path}.probe"] = ParameterType.WEIGHT
    return types


class Program:
    """The TorchProgram of a vision transformer. Batches hold NHWC images."""

    output_parameters = frozenset({"head.weight", "head.bias"})
    loss = staticmethod(softmax_cross_entropy)
    score = staticmethod(classification_score)

    def __init__(self, config: ViT) -> None:
        self.config = config
        with torch.device("meta"):  # names only: draws no random numbers and takes no memory
            self.parameter_types: Mapping[str, ParameterType] = _parameter_types(Network(config))

    def module(self) -> nn.Module:
        return Network(self.config)

    def logits(self, module: nn.Module, batch: Mapping[str, Tensor], *, dropout_rate: float) -> Tensor:
        out: Tensor = module(batch["inputs"].permute(0, 3, 1, 2), dropout_rate)
        return out


def program(config: ViT) -> Program:
    """The program of this configuration."""
    return Program(config)
