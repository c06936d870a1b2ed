"""An encoder-decoder transformer in torch; see `transformer.py`.

Shapes: B row, T position of the target (S of the source), D width, V token, L maximum length.
"""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from timetrial.engine.spec import ParameterType
from timetrial.workloads.losses_torch import classification_score, softmax_cross_entropy
from timetrial.workloads.models.transformer import PADDING, Transformer, position_code
from timetrial.workloads.models.transformer_decoding_torch import translations
from timetrial.workloads.models.transformer_layers_torch import (
    Cache,
    DecoderLayer,
    EncoderLayer,
    KeysValues,
    Stack,
    attention_mask,
)


class Network(nn.Module):
    """Source and target tokens to logits of the target (B, T, V), each from the tokens before it."""

    code_LD: Tensor

    def __init__(self, config: Transformer) -> None:
        super().__init__()
        self.config = config
        self.shared_embedding = nn.Embedding(config.num_tokens, config.width)  # standard normal
        self.encoder = Stack(config, EncoderLayer)
        self.decoder = Stack(config, DecoderLayer)
        code = torch.tensor(position_code(config.max_length, config.width))
        self.register_buffer("code_LD", code, persistent=False)

    def forward(
        self,
        inputs_BS: Tensor,
        targets_BT: Tensor,
        inputs_position_BS: Tensor | None = None,
        targets_position_BT: Tensor | None = None,
        inputs_segmentation_BS: Tensor | None = None,
        targets_segmentation_BT: Tensor | None = None,
        dropout_rate: float = 0.0,
    ) -> Tensor:
        """Positions and segments are those of packed rows; without them a row is one sentence."""
        source_segments, segments = inputs_segmentation_BS, targets_segmentation_BT
        mask = attention_mask(inputs_BS, inputs_BS, source_segments, source_segments)
        encoded_BSD = self.encoded(inputs_BS, mask, inputs_position_BS, dropout_rate)

        places = torch.arange(targets_BT.shape[1], device=targets_BT.device)
        mask = attention_mask(targets_BT, targets_BT, segments, segments)
        # The shift minds no segments: a packed sentence begins with the end of the one before, as in AlgoPerf.
        return self.decoded(
            F.pad(targets_BT[:, :-1], (1, 0), value=PADDING),
            places if targets_position_BT is None else targets_position_BT,
            self.source(encoded_BSD),
            mask & (places[:, None] >= places),
            attention_mask(targets_BT, inputs_BS, segments, source_segments),
            dropout_rate,
        )

    def encoded(
        self,
        inputs_BS: Tensor,
        mask_B1SS: Tensor,
        positions_BS: Tensor | None = None,
        dropout_rate: float = 0.0,
    ) -> Tensor:
        """The source, (B, S, D)."""
        if positions_BS is None:
            positions_BS = torch.arange(inputs_BS.shape[1], device=inputs_BS.device)
        x_BSD = self._embedded(inputs_BS, positions_BS, dropout_rate)
        for layer in self.encoder.layers:
            x_BSD = layer(x_BSD, mask_B1SS, dropout_rate)
        out: Tensor = self.encoder.norm(x_BSD)
        return out

    def source(self, encoded_BSD: Tensor) -> list[KeysValues]:
        """What each layer of the decoder attends to."""
        return [layer.multihead_attn.keys_values(encoded_BSD) for layer in self._decoder_layers()]

    def decoded(
        self,
        tokens_BT: Tensor,
        positions: Tensor,
        source: Sequence[KeysValues],
        self_mask_B1TT: Tensor,
        cross_mask_B1TS: Tensor,
        dropout_rate: float = 0.0,
        caches: Sequence[Cache] | None = None,
    ) -> Tensor:
        """Logits (B, T, V) of the tokens that follow. positions: (B, T), or what spreads to it."""
        x_BTD = self._embedded(tokens_BT, positions, dropout_rate)
        for i, layer in enumerate(self._decoder_layers()):
            cache = None if caches is None else caches[i]
            x_BTD = layer(x_BTD, source[i], self_mask_B1TT, cross_mask_B1TS, dropout_rate, cache)
        scale = self.config.width**-0.5
        return F.linear(self.decoder.norm(x_BTD) * scale, self.shared_embedding.weight)

    def _embedded(self, tokens_BT: Tensor, positions: Tensor, dropout_rate: float) -> Tensor:
        x_BTD = self.shared_embedding(tokens_BT)
        x_BTD = x_BTD + self.code_LD[positions].to(x_BTD.dtype)
        return F.dropout(x_BTD, dropout_rate, self.training)

    def _decoder_layers(self) -> list[DecoderLayer]:
        return [layer for layer in self.decoder.layers if isinstance(layer, DecoderLayer)]


_ATTENTION_WEIGHTS = {
    "q_proj": ParameterType.ATTENTION_Q,
    "k_proj": ParameterType.ATTENTION_K,
    "v_proj": ParameterType.ATTENTION_V,
    "out_proj": ParameterType.ATTENTION_OUT,
}


def _type_of(name: str) -> ParameterType:
    *_, module, leaf = name.split(".")
    if module == "shared_embedding":
        return ParameterType.EMBEDDING
    if module in _ATTENTION_WEIGHTS:
        return _ATTENTION_WEIGHTS[module]
    if module.startswith("norm"):
        return ParameterType.LAYER_NORM_SCALE if leaf == "weight" else ParameterType.LAYER_NORM_BIAS
    return ParameterType.WEIGHT if leaf == "weight" else ParameterType.BIAS


class Program:
    """The TorchProgram of an encoder-decoder transformer. The shared embedding is its output layer."""

    output_parameters = frozenset({"shared_embedding.weight"})
    loss = staticmethod(softmax_cross_entropy)
    score = staticmethod(classification_score)

    def __init__(self, config: Transformer) -> None:
        self.config = config
        with torch.device("meta"):  # names only: draws no random numbers and takes no memory
            names = [name for name, _ in Network(config).named_parameters()]
        self.parameter_types: Mapping[str, ParameterType] = {name: _type_of(name) for name in names}

    def module(self) -> nn.Module:
        return Network(self.config)

    def logits(self, module: nn.Module, batch: Mapping[str, Tensor], *, dropout_rate: float) -> Tensor:
        out: Tensor = module(
            batch["inputs"],
            batch["targets"],
            batch.get("inputs_position"),
            batch.get("targets_position"),
            batch.get("inputs_segmentation"),
            batch.get("targets_segmentation"),
            dropout_rate,
        )
        return out

    def decode(self, module: Network, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Of each row its translation and its reference, in tokens, and whether it is a row (1) or padding (0)."""
        targets_BT = batch["targets"]
        weights_BT = batch.get("weights", torch.ones_like(targets_BT))
        return {
            "translations": translations(module, batch["inputs"]),
            "references": targets_BT,
            "rows": weights_BT.ne(0).any(1).to(weights_BT.dtype),
        }


def program(config: Transformer) -> Program:
    """The program of this configuration."""
    return Program(config)
