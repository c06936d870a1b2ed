"""Random batches for every kind of model, so that models can be tested without any dataset."""

from functools import singledispatch

import numpy as np
from graph_maker import made_graphs

from timetrial.data_loading.graph_batches import Averages, Budget, collated
from timetrial.workloads.models.conformer import Conformer
from timetrial.workloads.models.decoder_lm import DecoderLM
from timetrial.workloads.models.deepspeech import DeepSpeech
from timetrial.workloads.models.dlrm import DLRM, DLRMResNet
from timetrial.workloads.models.graph_network import GraphNetwork
from timetrial.workloads.models.mlp import MLP
from timetrial.workloads.models.perceptron import Perceptron
from timetrial.workloads.models.resnet import ResNet
from timetrial.workloads.models.transformer import Transformer
from timetrial.workloads.models.unet import UNet
from timetrial.workloads.models.vit import ViT


@singledispatch
def random_batch(model, batch_size, seed=0):
    """`inputs` and `targets` such as the workload's own data has."""
    raise NotImplementedError(f"say here what a batch of {type(model).__name__} looks like")


@random_batch.register
def _(model: MLP, batch_size, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "inputs": rng.normal(size=(batch_size, model.num_features)).astype(np.float32),
        "targets": rng.integers(model.num_classes, size=batch_size).astype(np.int32),
    }


@random_batch.register
def _(model: ResNet, batch_size, seed=0):
    rng = np.random.default_rng(seed)
    side = 32 if model.stem_pool else 16
    return {
        "inputs": rng.normal(size=(batch_size, side, side, 3)).astype(np.float32),
        "targets": rng.integers(model.num_classes, size=batch_size).astype(np.int32),
    }


@random_batch.register
def _(model: DecoderLM, batch_size, seed=0):
    tokens = np.random.default_rng(seed).integers(model.num_tokens, size=(batch_size, model.length + 1))
    return {"inputs": tokens[:, :-1].astype(np.int32), "targets": tokens[:, 1:].astype(np.int32)}


@random_batch.register
def _(model: DLRM | DLRMResNet, batch_size, seed=0):
    rng = np.random.default_rng(seed)
    dense = np.log1p(rng.exponential(10.0, size=(batch_size, model.num_dense)))
    ids = rng.integers(40_000_000, size=(batch_size, model.num_categorical))
    return {
        "inputs": np.concatenate((dense, ids), 1).astype(np.float32),
        "targets": rng.integers(2, size=batch_size).astype(np.float32),
    }


@random_batch.register
def _(model: ViT, batch_size, seed=0):
    rng = np.random.default_rng(seed)
    side = model.image_size
    return {
        "inputs": rng.normal(size=(batch_size, side, side, 3)).astype(np.float32),
        "targets": rng.integers(model.num_classes, size=batch_size).astype(np.int32),
    }


@random_batch.register
def _(model: UNet, batch_size, seed=0):
    rng = np.random.default_rng(seed)
    side = min(64, 8 << model.pools)
    inputs, targets = rng.normal(size=(2, batch_size, side, side)).astype(np.float32)
    scalars = {"mean": (0.5, 1.0), "std": (0.5, 1.0), "volume_max": (3.0, 6.0)}
    return {
        "inputs": inputs,
        "targets": targets,
        **{name: rng.uniform(*bounds, batch_size).astype(np.float32) for name, bounds in scalars.items()},
    }


@random_batch.register
def _(model: Perceptron, batch_size, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "inputs": rng.normal(size=(batch_size, 28, 28, 1)).astype(np.float32),
        "targets": rng.integers(model.num_classes, size=batch_size).astype(np.int32),
    }


@random_batch.register
def _(model: Conformer, batch_size, seed=0):
    return random_speech(model, batch_size, 99, seed)


@random_batch.register
def _(model: DeepSpeech, batch_size, seed=0):
    return random_speech(model, batch_size, 27, seed)  # Dynamo unrolls what is left of the frames


def random_speech(model, batch_size, num_hops, seed):
    """Utterances of at most one frame more than `num_hops`; the later rows are shorter."""
    rng, labels = np.random.default_rng(seed), 3
    samples = model.features.frame_length + num_hops * model.features.hop
    lengths, label_lengths = (
        np.linspace(samples, samples // 2, batch_size),
        np.linspace(labels, 1, batch_size),
    )
    padding, label_padding = (
        (np.arange(places) >= ends[:, None]).astype(np.float32)
        for places, ends in ((samples, lengths), (labels, label_lengths))
    )
    audio = (rng.normal(0, 3000, padding.shape) * (1 - padding)).astype(np.float32)
    tokens = rng.integers(1, model.vocabulary, label_padding.shape) * (label_padding == 0)
    return {"inputs": (audio, padding), "targets": (tokens.astype(np.int32), label_padding)}


@random_batch.register
def _(model: GraphNetwork, batch_size, seed=0):
    sizes = {
        "tasks": model.num_tasks,
        "node_features": model.node_features,
        "edge_features": model.edge_features,
    }
    graphs = made_graphs(batch_size, seed, **sizes)
    return collated(graphs, np.arange(batch_size), Budget.of(batch_size, Averages(nodes=12, edges=24)))


@random_batch.register
def _(model: Transformer, batch_size, seed=0):
    """Rows of two sentences on either side."""
    rng, batch, place = np.random.default_rng(seed), {}, np.arange(model.max_length)
    for name in ("inputs", "targets"):
        cut = rng.integers(1, model.max_length, (batch_size, 1))
        batch[name] = rng.integers(1, model.num_tokens, (batch_size, model.max_length)).astype(np.int32)
        batch[f"{name}_position"] = np.where(place < cut, place, place - cut).astype(np.int32)
        batch[f"{name}_segmentation"] = (1 + (place >= cut)).astype(np.int32)
    return batch
