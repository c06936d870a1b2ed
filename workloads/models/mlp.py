"""The configuration of a small multilayer perceptron with one batch normalisation and dropout."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class MLP:
    """Dense -> batch norm -> ReLU -> dropout -> Dense -> ReLU -> dropout -> Dense."""

    num_features: int
    hidden: tuple[int, int]
    num_classes: int
