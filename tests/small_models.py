"""Every kind of model made small, in the same shape: what parity and compilation are tested on by default.

The full-size models go through the same tests with `-m slow`. Pocket models are small as they are.
"""

from dataclasses import replace
from functools import singledispatch

from timetrial.workloads.models.conformer import Conformer
from timetrial.workloads.models.decoder_lm import DecoderLM
from timetrial.workloads.models.deepspeech import DeepSpeech
from timetrial.workloads.models.dlrm import DLRM, DLRMResNet
from timetrial.workloads.models.graph_network import GraphNetwork
from timetrial.workloads.models.mlp import MLP
from timetrial.workloads.models.resnet import ResNet
from timetrial.workloads.models.speech_features import NO_MASKS
from timetrial.workloads.models.transformer import Transformer
from timetrial.workloads.models.unet import UNet
from timetrial.workloads.models.vit import ViT

SMALL_TABLE = 500  # rows


@singledispatch
def small(model):
    """The same model with fewer and narrower layers; the model itself where it is small."""
    return model


@small.register
def _(model: MLP):
    return replace(model, hidden=tuple(min(width, 128) for width in model.hidden))


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


@small.register
def _(model: Conformer):
    return replace(
        model,
        vocabulary=min(model.vocabulary, 20),
        width=min(model.width, 48),
        depth=min(model.depth, 2),
        num_heads=min(model.num_heads, 3),
        mlp_width=min(model.mlp_width, 64),
        subsampling_channels=min(model.subsampling_channels, 8),
        spec_augment=NO_MASKS,
    )


@small.register
def _(model: DeepSpeech):
    return replace(
        model,
        vocabulary=min(model.vocabulary, 12),
        width=min(model.width, 16),
        num_lstms=min(model.num_lstms, 2),
        num_feed_forward=min(model.num_feed_forward, 2),
        subsampling_channels=min(model.subsampling_channels, 4),
        spec_augment=NO_MASKS,
    )


@small.register
def _(model: GraphNetwork):
    return replace(
        model,
        latent=min(model.latent, 12),
        rounds=min(model.rounds, 2),
        hidden=tuple(min(width, 16) for width in model.hidden),
        num_tasks=min(model.num_tasks, 5),
    )


@small.register
def _(model: Transformer):
    return replace(
        model,
        num_tokens=min(model.num_tokens, 50),
        max_length=min(model.max_length, 12),
        width=min(model.width, 24),
        num_layers=min(model.num_layers, 2),
        num_heads=min(model.num_heads, 3),
        mlp_width=min(model.mlp_width, 20),
    )


@small.register
def _(model: DecoderLM):
    return replace(
        model,
        num_tokens=min(model.num_tokens, 256),
        length=min(model.length, 128),
        width=min(model.width, 64),
        num_layers=min(model.num_layers, 2),
        num_heads=min(model.num_heads, 2),
        mlp_width=min(model.mlp_width, 256),
    )


def affordable(model):
    """The model at full size but for what the tests cannot have.

    A table of embeddings would take gigabytes; spans that SpecAugment hides at random differ between frameworks.
    """
    if hasattr(model, "table_rows"):
        return replace(model, table_rows=65_536)
    return replace(model, spec_augment=NO_MASKS) if hasattr(model, "spec_augment") else model
