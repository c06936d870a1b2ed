"""Random batches for every kind of model, so that models can be tested without any dataset."""

from functools import singledispatch

import numpy as np

from timetrial.workloads.models.decoder_lm import DecoderLM
from timetrial.workloads.models.dlrm import DLRM, DLRMResNet
from timetrial.workloads.models.mlp import MLP
from timetrial.workloads.models.perceptron import Perceptron
from timetrial.workloads.models.resnet import ResNet
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
    return {
        "inputs": rng.normal(size=(batch_size, 32, 32, 3)).astype(np.float32),
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
    inputs, targets = rng.normal(size=(2, batch_size, 64, 64)).astype(np.float32)
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
