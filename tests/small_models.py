"""Every kind of model made small, in the same shape: what parity and compilation are tested on by default.

The full-size models go through the same tests with `-m slow`. Pocket models are small as they are.
"""

from dataclasses import replace
from functools import singledispatch

from timetrial.workloads.models.dlrm import DLRM, DLRMResNet
from timetrial.workloads.models.resnet import ResNet
from timetrial.workloads.models.unet import UNet
from timetrial.workloads.models.vit import ViT

SMALL_TABLE = 500  # rows


@singledispatch
def small(model):
    """The same model with fewer and narrower layers; the model itself where it is small."""
    return model


@small.register
def _(model: ResNet):
    sizes = tuple(min(size, 1 + (stage == 0)) for stage, size in enumerate(model.stage_sizes))
    return replace(
        model, stage_sizes=sizes, width=min(model.width, 8), num_classes=min(model.num_classes, 20)
    )


@small.register
def _(model: ViT):
    return replace(
        model,
        image_size=min(model.image_size, 4 * model.patch),
        depth=min(model.depth, 2),
        width=min(model.width, 48),
        num_heads=min(model.num_heads, 3),
        mlp_width=min(model.mlp_width, 64),
        num_classes=min(model.num_classes, 20),
    )


@small.register
def _(model: UNet):
    return replace(model, channels=min(model.channels, 4), pools=min(model.pools, 2))


@small.register
def _(model: DLRM):
    return replace(
        model,
        table_rows=SMALL_TABLE,
        embedding_width=16,
        bottom_widths=(24, 16),
        top_widths=tuple(min(width, 32) for width in model.top_widths),
    )


@small.register
def _(model: DLRMResNet):
    return replace(model, table_rows=SMALL_TABLE, embedding_width=16, width=24)


def affordable(model):
    """The model at full size but for a table of embeddings, which would take gigabytes."""
    return replace(model, table_rows=65_536) if hasattr(model, "table_rows") else model
