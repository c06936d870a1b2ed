"""From the sufficient statistics of a split to its named metrics, on the host.

Every function is a page's `metrics`; its second argument, the folder of the prepared data, is for those that read a
tokenizer there.
"""

import math
from pathlib import Path

from timetrial.engine.facts import Statistics


def accuracy_and_loss(statistics: Statistics, data: Path) -> dict[str, float]:
    """`accuracy` (top-1, 0 to 1) and `loss` (mean cross-entropy in nats) from `loss`, `correct`, `count`."""
    del data
    count = statistics["count"]
    return {"accuracy": statistics["correct"] / count, "loss": statistics["loss"] / count}


def perplexity_and_loss(statistics: Statistics, data: Path) -> dict[str, float]:
    """`ppl` = exp(`loss`) and `loss` (mean cross-entropy per token in nats) from `loss` and `count`.

    A loss beyond float64's exponent gives an infinite perplexity.
    """
    del data
    loss = statistics["loss"] / statistics["count"]
    ppl = math.exp(loss) if loss < 700 else math.nan if math.isnan(loss) else math.inf
    return {"ppl": ppl, "loss": loss}


def mean_loss(statistics: Statistics, data: Path) -> dict[str, float]:
    """`loss`, the mean over the examples, from `loss` and `count`."""
    del data
    return {"loss": statistics["loss"] / statistics["count"]}


def ssim_and_loss(statistics: Statistics, data: Path) -> dict[str, float]:
    """`ssim` and `loss` (mean absolute error), means over the examples, from `ssim`, `loss` and `count`."""
    del data
    count = statistics["count"]
    return {"ssim": statistics["ssim"] / count, "loss": statistics["loss"] / count}
