"""Random batches for every kind of model, so that models can be tested without any dataset."""

from functools import singledispatch

import numpy as np

from timetrial.workloads.models.decoder_lm import DecoderLM
from timetrial.workloads.models.mlp import MLP
from timetrial.workloads.models.resnet import ResNet


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
