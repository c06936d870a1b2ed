"""FLAC files to PCM, by DALI's audio decoder on the CPU, batch after batch in one thread.

Its samples are those of libsndfile, which it holds, to the bit.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from nvidia.dali import fn
from nvidia.dali.data_node import DataNode
from nvidia.dali.pipeline import Pipeline, pipeline_def
from nvidia.dali.types import DALIDataType

from timetrial.engine.errors import DataError

FILES_AT_ONCE = 32


def decode(files: Sequence[bytes], names: Sequence[str], sample_rate: int) -> list[np.ndarray]:
    """The samples of every file, (samples,) int16.

    DataError, with the file's name, where one is damaged, is not mono or has another sample rate.
    """
    decoded: list[np.ndarray] = []
    pipeline = _opened(files, FILES_AT_ONCE)
    while len(decoded) < len(files):
        here = slice(len(decoded), len(decoded) + FILES_AT_ONCE)
        try:
            audio, rates = pipeline.run()
        except RuntimeError as error:
            raise DataError(
                f"{_first_damaged(files[here], names[here])} is cut short or no FLAC file; extract or fetch it again"
            ) from error
        for i, name in enumerate(names[here]):
            samples, rate = np.asarray(audio.at(i)), float(np.asarray(rates.at(i)))
            if rate != sample_rate:
                raise DataError(f"{name} has {rate:g} samples a second, not {sample_rate}")
            if samples.shape[1] != 1:
                raise DataError(f"{name} has {samples.shape[1]} channels, not 1")
            decoded.append(samples[:, 0].copy())  # the pipeline will use the memory again
    return decoded


def _first_damaged(files: Sequence[bytes], names: Sequence[str]) -> str:
    """The name of the file that cannot be decoded; a batch's error does not say which it is."""
    for file, name in zip(files, names, strict=True):
        try:
            _opened([file], 1).run()
        except RuntimeError:
            return name
    return f"a file from {names[0]} to {names[-1]}"


def _opened(files: Sequence[bytes], at_once: int) -> Pipeline:
    starts = range(0, len(files), at_once)
    batches = ([np.frombuffer(file, np.uint8) for file in files[i : i + at_once]] for i in starts)
    return _pipeline(batches, batch_size=at_once, num_threads=1, device_id=None, prefetch_queue_depth=1)


@pipeline_def
def _pipeline(batches: Iterator[list[np.ndarray]]) -> tuple[DataNode, DataNode]:
    encoded = fn.external_source(source=batches, dtype=DALIDataType.UINT8, ndim=1)
    audio, rates = fn.decoders.audio(encoded, dtype=DALIDataType.INT16)
    return audio, rates
