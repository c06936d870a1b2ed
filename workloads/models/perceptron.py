"""The configuration of a perceptron with one hidden layer."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Perceptron:
    """Dense -> sigmoid -> Dense, on images flattened row by row (AlgoPerf's `mnist`)."""

    num_features: int  # values of an image
    hidden: int
    num_classes: int
