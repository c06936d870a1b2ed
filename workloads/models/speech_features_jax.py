"""Log-mel features and SpecAugment in JAX; see `speech_features.py`. B batch, N samples, T frames, F mel bins."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.custom_batching import custom_vmap
from jax.experimental.custom_partitioning import custom_partitioning

from timetrial.workloads.models.speech_features import (
    POWER_FLOOR,
    PRE_EMPHASIS,
    SAMPLE_SCALE,
    LogMel,
    SpecAugment,
    hann_window,
    mel_matrix,
)


def log_mel(config: LogMel, audio_BN: Array, padding_BN: Array) -> tuple[Array, Array]:
    """Features (B, T, F) and padding (B, T); padding is 1.0 where there is nothing, else 0.0.

    audio: 16-bit samples as floats. ValueError where there are fewer samples than a frame has.
    """
    samples = audio_BN * (1 - padding_BN) * SAMPLE_SCALE
    frames_BTN = _frames(config, samples)
    first = (1 - PRE_EMPHASIS) * frames_BTN[..., :1]
    emphasised = jnp.concatenate((first, frames_BTN[..., 1:-1] - PRE_EMPHASIS * frames_BTN[..., :-2]), -1)
    power = power_spectrum(emphasised * hann_window(config.window).astype(samples.dtype), config.fft_size)
    # A GPU's default would round the factors to ten bits.
    mel = jnp.matmul(power, mel_matrix(config).astype(power.dtype), precision=jax.lax.Precision.HIGHEST)
    logarithms = jnp.log(jnp.maximum(mel, POWER_FLOOR))
    means, deviations = (jnp.asarray(values, mel.dtype) for values in (config.means, config.deviations))
    return (logarithms - means) / deviations, _frames(config, padding_BN).min(-1)


def power_spectrum(frames_BTN: Array, fft_size: int) -> Array:
    """Power of each frequency, (B, T, fft_size // 2 + 1), of frames followed by zeros; it has no gradient."""

    @custom_vmap
    def of_batch(frames_BTN: Array) -> Array:
        power: Array = _power_spectrum(frames_BTN, fft_size)
        return power

    @of_batch.def_vmap
    def of_batches(size: int, batched: Any, frames_VBTN: Array) -> tuple[Array, bool]:
        flat = of_batch(frames_VBTN.reshape(-1, *frames_VBTN.shape[2:]))
        return flat.reshape(size, -1, *flat.shape[1:]), True

    power_BTF: Array = of_batch(frames_BTN)
    return power_BTF


@partial(custom_partitioning, static_argnums=(1,))
def _power_spectrum(frames_BTN: Array, fft_size: int) -> Array:
    """Left to itself, XLA would gather the whole batch on every device before a Fourier transform."""
    spectrum = jnp.fft.rfft(frames_BTN, fft_size)
    return jnp.square(spectrum.real) + jnp.square(spectrum.imag)


def _each_share(fft_size: int, mesh: Any, operands: Any, result: Any) -> Any:
    """How a device computes its share of the batch: alone."""
    of_share = partial(_power_spectrum.fun, fft_size=fft_size)
    return mesh, of_share, result.sharding, tuple(operand.sharding for operand in operands)


_power_spectrum.def_partition(
    partition=_each_share,
    sharding_rule="batch frame sample -> batch frame frequency",
    need_replication_factors=("sample", "frequency"),
)


def spec_augment(config: SpecAugment, features_BTF: Array, padding_BT: Array, rng: Array) -> Array:
    """The features with spans set to 0; for training only."""
    batch, frames, bins = features_BTF.shape
    time_rng, frequency_rng = jax.random.split(rng)
    unpadded_B1 = (1 - padding_BT).sum(1, keepdims=True)
    uniform = jax.random.uniform(time_rng, (2, batch, config.time_masks), padding_BT.dtype)
    hidden_BT = _spans(uniform, config.time_fraction * unpadded_B1, unpadded_B1, frames)
    features_BTF = jnp.where(hidden_BT[:, :, None], 0.0, features_BTF)
    ones_B1 = jnp.ones_like(unpadded_B1)
    uniform = jax.random.uniform(frequency_rng, (2, batch, config.frequency_masks), padding_BT.dtype)
    hidden_BF = _spans(uniform, config.frequency_bins * ones_B1, bins * ones_B1, bins)
    return jnp.where(hidden_BF[:, None, :], 0.0, features_BTF)


def _frames(config: LogMel, x_BN: Array) -> Array:
    """(B, N) to (B, T, frame_length): shifted rows of `hop` samples side by side, which XLA does without a gather."""
    frames, hop = config.num_frames(x_BN.shape[1]), config.hop
    shifts = -(-config.frame_length // hop)
    missing = max(0, (frames + shifts - 1) * hop - x_BN.shape[1])
    rows = jnp.pad(x_BN, ((0, 0), (0, missing)))[:, : (frames + shifts - 1) * hop].reshape(len(x_BN), -1, hop)
    shifted = [rows[:, shift : shift + frames] for shift in range(shifts)]
    return jnp.concatenate(shifted, -1)[..., : config.frame_length]


def _spans(uniform_2BM: Array, widest_B1: Array, extent_B1: Array, places: int) -> Array:
    """(B, places): whether a place lies in one of M spans within the first `extent` places."""
    width_BM = jnp.floor(uniform_2BM[0] * widest_B1)
    start_BM = jnp.floor(uniform_2BM[1] * (extent_B1 - width_BM + 1))
    place_P = jnp.arange(places)
    after, before = place_P >= start_BM[..., None], place_P < (start_BM + width_BM)[..., None]
    return (after & before).any(1)
