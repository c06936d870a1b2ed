"""The configurations of two networks that predict clicks from dense and categorical features.

The categorical features share one embedding table, in which their ids collide freely, modulo its rows. Its initial
values are one-sided: Uniform[0, `embedding_bound`).
"""

import math
from dataclasses import dataclass

LAYER_NORM_EPSILON = 1e-6  # AlgoPerf, criteo1tb


@dataclass(frozen=True, kw_only=True)
class DLRM:
    """DLRM (Naumov et al. 2019) as AlgoPerf has it: bottom perceptron, dot products of all pairs, top perceptron.

    A vector paired with itself counts as a pair. Dropout follows the last of `top_widths`, and then comes the
    output layer, one wide.
    """

    num_dense: int = 13
    num_categorical: int = 26
    table_rows: int = 4_194_304
    embedding_width: int = 128
    embedding_scale: float | None = None  # the bound of initial embeddings; 1 / sqrt(rows) where it is None
    bottom_widths: tuple[int, ...] = (512, 256, 128)
    top_widths: tuple[int, ...] = (1024, 1024, 512, 256)
    layer_norm: bool = False  # after every ReLU, and of every looked-up row

    def __post_init__(self) -> None:
        if self.bottom_widths[-1] != self.embedding_width:
            raise ValueError(
                f"the last of bottom_widths {self.bottom_widths} must be the embedding width "
                f"{self.embedding_width}: dot products are of equally wide vectors"
            )

    @property
    def embedding_bound(self) -> float:
        return 1 / math.sqrt(self.table_rows) if self.embedding_scale is None else self.embedding_scale


@dataclass(frozen=True, kw_only=True)
class DLRMResNet:
    """The same features without dot products, through perceptrons of one width with residual layers.

    The first layer of each perceptron changes the width; the others have a shortcut around layer and ReLU. Dropout
    is in the last of `top_layers`, before its shortcut is added, and then comes the output layer, one wide.
    """

    num_dense: int = 13
    num_categorical: int = 26
    table_rows: int = 4_194_304
    embedding_width: int = 128
    width: int = 256
    bottom_layers: int = 3
    top_layers: int = 4  # at least 2

    @property
    def embedding_bound(self) -> float:
        return 1 / math.sqrt(self.table_rows)
