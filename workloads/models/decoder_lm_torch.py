"""A decoder-only language model in torch; see `decoder_lm.py`.

Shapes: B batch, T position, D width, N head, H head width, V token.
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from timetrial.engine.spec import ParameterType
from timetrial.workloads.losses_torch import classification_score, softmax_cross_entropy
from timetrial.workloads.models.decoder_lm import (
    INIT_STD,
    QK_NORM_EPSILON,
    RMS_NORM_EPSILON,
    DecoderLM,
    rotary_tables,
)


def projection(width_in: int, width_out: int, std: float) -> nn.Linear:
    """A linear map without bias, normally initialised."""
    layer = nn.Linear(width_in, width_out, bias=False)
    nn.init.normal_(layer.weight, std=std)
    return layer


def rotated(x_BTNH: Tensor, cos_T1H: Tensor, sin_T1H: Tensor) -> Tensor:
    """Rotary embedding on interleaved pairs; the tables hold half of H."""
    even, odd = x_BTNH[..., 0::2], x_BTNH[..., 1::2]
    return torch.stack((even * cos_T1H - odd * sin_T1H, even * sin_T1H + odd * cos_T1H), -1).flatten(-2)


def unit_norm(x_BTNH: Tensor) -> Tensor:
    """Each head's vector divided by its Euclidean norm."""
    unit: Tensor = x_BTNH / (torch.linalg.vector_norm(x_BTNH, dim=-1, keepdim=True) + QK_NORM_EPSILON)
    return unit


class Attention(nn.Module):
    """Causal self-attention on unit queries and keys."""

    def __init__(self, config: DecoderLM) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.q_proj = projection(config.width, config.width, INIT_STD)
        self.k_proj = projection(config.width, config.width, INIT_STD)
        self.v_proj = projection(config.width, config.width, INIT_STD)
        self.out_proj = projection(config.width, config.width, config.residual_std)
        self.scale = nn.Parameter(torch.tensor(config.initial_attention_scale))

    def forward(self, x_BTD: Tensor, cos_T1H: Tensor, sin_T1H: Tensor) -> Tensor:
        q, k, v = (
            layer(x_BTD).unflatten(-1, (self.num_heads, -1))
            for layer in (self.q_proj, self.k_proj, self.v_proj)
        )
        q = unit_norm(rotated(q, cos_T1H, sin_T1H)) * self.scale
        k = unit_norm(rotated(k, cos_T1H, sin_T1H))
        out_BNTH = F.scaled_dot_product_attention(
            q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), is_causal=True, scale=1.0
        )
        out: Tensor = self.out_proj(out_BNTH.transpose(1, 2).flatten(2))
        return out


class GatedMLP(nn.Module):
    """a * sigmoid(b) between two projections, the first of which yields a and b."""

    def __init__(self, config: DecoderLM) -> None:
        super().__init__()
        self.up = projection(config.width, 2 * config.mlp_width, INIT_STD)
        self.down = projection(config.mlp_width, config.width, config.residual_std)

    def forward(self, x_BTD: Tensor) -> Tensor:
        out: Tensor = self.down(F.glu(self.up(x_BTD)))
        return out


class Block(nn.Module):
    """Attention and MLP, each on the normalised residual stream."""

    def __init__(self, config: DecoderLM) -> None:
        super().__init__()
        self.attention_norm = nn.RMSNorm(config.width, eps=RMS_NORM_EPSILON)
        self.attention = Attention(config)
        self.mlp_norm = nn.RMSNorm(config.width, eps=RMS_NORM_EPSILON)
        self.mlp = GatedMLP(config)

    def forward(self, x_BTD: Tensor, cos_T1H: Tensor, sin_T1H: Tensor) -> Tensor:
        x_BTD = x_BTD + self.attention(self.attention_norm(x_BTD), cos_T1H, sin_T1H)
        out: Tensor = x_BTD + self.mlp(self.mlp_norm(x_BTD))
        return out


class Network(nn.Module):
    """Tokens (B, T) to logits (B, T, V)."""

    cos: Tensor
    sin: Tensor

    def __init__(self, config: DecoderLM) -> None:
        super().__init__()
        self.embedding = nn.Embedding(config.num_tokens, config.width)
        nn.init.normal_(self.embedding.weight, std=INIT_STD)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_layers))
        self.final_norm = nn.RMSNorm(config.width, eps=RMS_NORM_EPSILON)
        cos, sin = rotary_tables(config.length, config.head_width)
        self.register_buffer("cos", torch.tensor(cos), persistent=False)
        self.register_buffer("sin", torch.tensor(sin), persistent=False)

    def forward(self, tokens_BT: Tensor) -> Tensor:
        x_BTD = self.embedding(tokens_BT)
        length = tokens_BT.shape[1]
        cos_T1H = self.cos[:length, None].to(x_BTD.dtype)
        sin_T1H = self.sin[:length, None].to(x_BTD.dtype)
        for block in self.blocks:
            x_BTD = block(x_BTD, cos_T1H, sin_T1H)
        return F.linear(self.final_norm(x_BTD), self.embedding.weight)


def _parameter_types(num_layers: int) -> dict[str, ParameterType]:
    of_block = {
        "attention_norm.weight": ParameterType.LAYER_NORM_SCALE,
        "attention.scale": ParameterType.WEIGHT,
        "attention.q_proj.weight": ParameterType.ATTENTION_Q,
        "attention.k_proj.weight": ParameterType.ATTENTION_K,
        "attention.v_proj.weight": ParameterType.ATTENTION_V,
        "attention.out_proj.weight": ParameterType.ATTENTION_OUT,
        "mlp_norm.weight": ParameterType.LAYER_NORM_SCALE,
        "mlp.up.weight": ParameterType.WEIGHT,
        "mlp.down.weight": ParameterType.WEIGHT,
    }
    types = {f"blocks.{i}.{name}": kind for i in range(num_layers) for name, kind in of_block.items()}
    return types | {
        "embedding.weight": ParameterType.EMBEDDING,
        "final_norm.weight": ParameterType.LAYER_NORM_SCALE,
    }


class Program:
    """The TorchProgram of a language model. The tied embedding is its output layer."""

    output_parameters = frozenset({"embedding.weight"})
    loss = staticmethod(softmax_cross_entropy)
    score = staticmethod(classification_score)

    def __init__(self, config: DecoderLM) -> None:
        self.config = config
        self.parameter_types: Mapping[str, ParameterType] = _parameter_types(config.num_layers)

    def module(self) -> nn.Module:
        return Network(self.config)

    def logits(self, module: nn.Module, batch: Mapping[str, Tensor], *, dropout_rate: float) -> Tensor:
        """There is no dropout in this model: the rate is ignored."""
        out: Tensor = module(batch["inputs"])
        return out


def program(config: DecoderLM) -> Program:
    """The program of this configuration."""
    return Program(config)
