"""Log-mel features against float64 NumPy, one frame at a time; what SpecAugment hides; both in both frameworks."""

import os
import subprocess
import sys
from dataclasses import replace
from functools import partial

import jax
import numpy as np
import pytest
import scipy.fft
import scipy.signal
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from timetrial.workloads.models import speech_features_jax, speech_features_torch
from timetrial.workloads.models.speech_features import LogMel, SpecAugment, hann_window, mel_matrix

FULL = LogMel()
SMALL = LogMel(
    sample_rate=8000,
    window=200,
    hop=70,
    fft_size=256,
    lower_edge=60.0,
    upper_edge=3800.0,
    means=tuple(np.linspace(-7, -5, 20)),
    deviations=tuple(np.linspace(2, 4, 20)),
)
CONFIGS = pytest.mark.parametrize("config", [FULL, SMALL], ids=["full", "small"])
KEY = np.array([0, 3], np.uint32)


def in_torch(config, audio, padding):
    features = speech_features_torch.LogMelFeatures(config)
    return [x.numpy() for x in features(torch.from_numpy(audio), torch.from_numpy(padding))]


def in_jax(config, audio, padding):
    return [np.asarray(x) for x in jax.jit(partial(speech_features_jax.log_mel, config))(audio, padding)]


BOTH = pytest.mark.parametrize("log_mel", [in_torch, in_jax])


def speech(config, samples, lengths, dtype=np.float64):
    """Sums of tones and noise, as 16-bit samples, louder from row to row; what is padded is not 0."""
    rng = np.random.default_rng(0)
    times = np.arange(samples) / config.sample_rate
    tones = sum(np.sin(2 * np.pi * f * times + f) for f in (110.0, 430.0, 1777.0, 3333.0))
    rows = [10.0 ** (row + 1) * tones + rng.normal(0, 30, samples) for row in range(len(lengths))]
    padding = (np.arange(samples) >= np.array(lengths)[:, None]).astype(dtype)
    return np.round(rows).astype(dtype), padding


def hertz(mel):
    return 700 * (np.exp(mel / 1127) - 1)


def reference(config, audio, padding):
    """Features and padding of one row, frame by frame and triangle by triangle; the transform is scipy's."""
    edges = hertz(
        np.linspace(
            *(1127 * np.log(1 + f / 700) for f in (config.lower_edge, config.upper_edge)), config.mel_bins + 2
        )
    )
    features, padded = [], []
    for start in range(0, len(audio) - config.window, config.hop):
        frame = np.where(padding, 0, audio)[start : start + config.window + 1] / 32768
        padded.append(padding[start : start + config.window + 1].all())
        emphasised = scipy.signal.lfilter([1, -0.97], [1], frame[:-1])
        emphasised[0] = 0.03 * frame[0]
        window = scipy.signal.get_window("hann", config.window, fftbins=True)
        power = np.abs(scipy.fft.rfft(emphasised * window, config.fft_size)) ** 2
        frame_features = []
        for lower, centre, upper in zip(edges, edges[1:], edges[2:], strict=False):
            total = 0.0
            for bin_number in range(1, len(power)):
                f = bin_number * config.sample_rate / config.fft_size
                if lower < f < upper:
                    mel, ends = np.log(700 + f), np.log(700 + (lower if f < centre else upper))
                    total += power[bin_number] * (mel - ends) / (np.log(700 + centre) - ends)
            frame_features.append(np.log(max(total, 1e-5)))
        features.append((np.array(frame_features) - config.means) / config.deviations)
    return np.array(features), np.array(padded, float)


@BOTH
@CONFIGS
def test_features_are_the_formulas(config, log_mel):
    samples = 7 * config.hop + config.window + 31
    audio, padding = speech(config, samples, [samples, 3 * config.hop, 0])
    with jax.enable_x64(True):
        features, frame_padding = log_mel(config, audio, padding)
    assert features.shape == (3, 8, config.mel_bins) and features.dtype == np.float64
    for row in range(3):
        wanted, wanted_padding = reference(config, audio[row], padding[row])
        np.testing.assert_allclose(features[row], wanted, rtol=0, atol=1e-9)
        np.testing.assert_array_equal(frame_padding[row], wanted_padding)
    # Frames begin at 0, hop, 2 hop and so on: those at 3 hop and later see nothing of the second row.
    assert frame_padding.tolist() == [[0] * 8, [0] * 3 + [1] * 5, [1] * 8]


@BOTH
def test_features_in_float32_are_close(log_mel):
    audio, padding = speech(FULL, 1400, [1400] * 4)
    wanted = [reference(FULL, *row)[0] for row in zip(audio, padding, strict=True)]
    features, _ = log_mel(FULL, audio.astype(np.float32), padding.astype(np.float32))
    assert features.dtype == np.float32
    np.testing.assert_allclose(features, wanted, rtol=0, atol=2e-4)


@BOTH
def test_silence_has_the_floor_s_features(log_mel):
    features, _ = log_mel(FULL, np.zeros((1, 401)), np.zeros((1, 401)))
    wanted = (np.log(1e-5) - np.array(FULL.means)) / np.array(FULL.deviations)
    np.testing.assert_allclose(features[0, 0], wanted, rtol=1e-5)


@BOTH
def test_twenty_seconds_are_1998_frames_and_less_than_a_frame_is_refused(log_mel):
    audio = np.zeros((1, 320_000), np.float32)
    assert log_mel(FULL, audio, audio)[0].shape == (1, 1998, 80)
    with pytest.raises(ValueError, match="at least 401"):
        log_mel(FULL, audio[:, :400], audio[:, :400])


def test_the_constants_are_algoperfs():
    assert len(FULL.means) == len(FULL.deviations) == 80
    assert FULL.means[:2] == (-7.605, -7.121) and FULL.means[-2:] == (-6.863, -6.942)
    assert FULL.deviations[:2] == (3.435, 3.596) and FULL.deviations[-2:] == (3.428, 3.430)
    window = hann_window(400)
    assert window[0] == 0 and window[200] == 1 and window[100] == pytest.approx(0.5)
    np.testing.assert_allclose(window[1:], window[:0:-1])  # periodic: symmetric but for its first value
    triangles = mel_matrix(FULL)
    assert triangles.shape == (257, 80) and not triangles[0].any() and triangles.max() <= 1
    touched = np.flatnonzero(triangles.any(1)) * 16_000 / 512
    assert (touched.min(), touched.max()) == (156.25, 7593.75)  # the first and last within 125 and 7,600 Hz
    # Between the first and the last centre every frequency is shared out whole.
    inside = triangles[(np.arange(257) * 31.25 > 160) & (np.arange(257) * 31.25 < 7300)]
    np.testing.assert_allclose(inside.sum(1), 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"means": (0.0,)}, "1 means"),
        ({"fft_size": 256}, "fft_size 256"),
        ({"upper_edge": 8001.0}, "half of the 16000"),
    ],
)
def test_features_that_cannot_be_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        replace(FULL, **change)


SPLIT = """
import jax
import numpy as np
from timetrial.workloads.models.speech_features import LogMel
from timetrial.workloads.models.speech_features_jax import log_mel

split = jax.NamedSharding(jax.make_mesh((2,), ("batch",)), jax.P("batch"))
audio = np.random.default_rng(0).normal(0, 1000, (4, 1000)).astype(np.float32)
compute = jax.jit(lambda audio: log_mel(LogMel(), audio, 0 * audio), in_shardings=split, out_shardings=split)
print("all-gather" in compute.lower(audio).compile().as_text())
print(np.abs(np.asarray(compute(audio)[0]) - log_mel(LogMel(), audio, 0 * audio)[0]).max() < 1e-4)
"""


def test_jax_devices_transform_their_own_shares():
    """Without a gather of the batch, which XLA's own partition of Fourier transforms begins with."""
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=2", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", SPLIT], capture_output=True, text=True, check=True, env={**os.environ, **flags}
    )
    assert done.stdout.split() == ["False", "True"]


def test_jax_features_take_transformations():
    """A submission may map the model over parts of a batch, and compute it twice to save memory."""
    audio, padding = speech(SMALL, 500, [500, 300, 400, 100], np.float32)
    wanted, _ = speech_features_jax.log_mel(SMALL, audio, padding)

    def weighted(weight, audio):
        return weight * speech_features_jax.log_mel(SMALL, audio, padding[:2])[0]

    parts = audio.reshape(2, 2, -1) * (1 - padding.reshape(2, 2, -1))
    mapped = jax.vmap(weighted, (None, 0))(1.0, parts)
    first = weighted(1.0, parts[0])
    np.testing.assert_allclose(mapped[0], first, rtol=0, atol=1e-5)
    gradient = jax.grad(lambda weight: jax.checkpoint(weighted)(weight, parts[0]).sum())(2.0)
    assert float(gradient) == pytest.approx(float(first.sum()), rel=1e-5)
    np.testing.assert_allclose(first, wanted[:2], rtol=0, atol=1e-5)


def augment_in_torch(config, features, padding, seed):
    torch.manual_seed(seed)
    return speech_features_torch.spec_augment(
        config, torch.from_numpy(features), torch.from_numpy(padding)
    ).numpy()


@partial(jax.jit, static_argnums=0)
def _augment(config, features, padding, rng):
    return speech_features_jax.spec_augment(config, features, padding, rng)


def augment_in_jax(config, features, padding, seed):
    return np.asarray(_augment(config, features, padding, np.array([0, seed], np.uint32)))


AUGMENTS = pytest.mark.parametrize("augment", [augment_in_torch, augment_in_jax])


def hidden_by(augment, config, lengths, frames, bins, seed):
    """Which cells are 0, of features that are not: (batch, frames, bins)."""
    padding = (np.arange(frames) >= np.array(lengths)[:, None]).astype(np.float32)
    features = np.ones((len(lengths), frames, bins), np.float32)
    return augment(config, features, padding, seed) == 0


@AUGMENTS
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31 - 1), lengths=st.tuples(*[st.integers(0, 90)] * 3))
def test_one_span_is_no_wider_than_allowed_and_ends_before_padding(augment, seed, lengths):
    time = SpecAugment(time_masks=1, time_fraction=0.3, frequency_masks=0)
    for length, hidden in zip(lengths, hidden_by(augment, time, lengths, 90, 6, seed), strict=True):
        rows = np.flatnonzero(hidden.any(1))
        assert (hidden.all(1) == hidden.any(1)).all()
        assert len(rows) <= 0.3 * length
        if len(rows):
            assert rows[-1] < length and rows[-1] - rows[0] == len(rows) - 1
    frequency = SpecAugment(time_masks=0, frequency_masks=1, frequency_bins=5)
    for hidden in hidden_by(augment, frequency, lengths, 90, 6, seed):
        columns = np.flatnonzero(hidden.any(0))
        assert (hidden.all(0) == hidden.any(0)).all()
        assert len(columns) <= 4 and (not len(columns) or columns[-1] - columns[0] == len(columns) - 1)


@AUGMENTS
def test_widths_and_places_are_uniform(augment):
    length, frames, count = 40, 50, 6000
    config = SpecAugment(time_masks=1, time_fraction=0.1, frequency_masks=1, frequency_bins=3)
    hidden = hidden_by(augment, config, [length] * count, frames, 12, 1)
    rows, columns = hidden.all(2), hidden.all(1)
    for spans, places, widest in ((rows, length, 4), (columns, 12, 3)):
        widths = spans.sum(1)
        assert np.unique(widths).tolist() == list(range(widest))
        shares = np.bincount(widths) / count
        np.testing.assert_allclose(shares, 1 / widest, atol=4 * np.sqrt(0.25 / count))
        for width in range(1, widest):
            starts = spans[widths == width].argmax(1)
            possible = places - width + 1
            assert set(starts) == set(range(possible))
            error = 4 * np.sqrt(possible**2 / 12 / len(starts))
            assert abs(starts.mean() - (possible - 1) / 2) < error


def expected_hidden(places, widths, spans):
    """Mean number of places in at least one of `spans` spans, widths below `widths`, each equally likely."""
    covered = np.zeros(places)
    for width in range(widths):
        for start in range(places - width + 1):
            covered[start : start + width] += 1 / (widths * (places - width + 1))
    return (1 - (1 - covered) ** spans).sum()


@AUGMENTS
@pytest.mark.parametrize(("time", "frequency"), [(10, 2), (15, 4), (0, 0)])
def test_as_much_is_hidden_as_asked(augment, time, frequency):
    """Independently for each example: on average what so many independent spans cover."""
    config = SpecAugment(time_masks=time, frequency_masks=frequency)
    hidden = hidden_by(augment, config, [600, 200] * 60, 600, 80, 3)
    rows, columns = hidden.all(2), hidden.all(1)
    assert rows[::2].sum(1).mean() == pytest.approx(expected_hidden(600, 30, time), rel=0.06)
    assert rows[1::2].sum(1).mean() == pytest.approx(expected_hidden(200, 10, time), rel=0.06)
    assert columns.sum(1).mean() == pytest.approx(expected_hidden(80, 27, frequency), rel=0.06)
    assert not rows[1::2, 200:].any()
    # Nothing else is hidden, and a span of features reaches into the padding too.
    np.testing.assert_array_equal(hidden, rows[:, :, None] | columns[:, None, :])
    starts = (np.diff(rows, axis=1, prepend=False) & rows).sum(1)
    assert starts.max() <= time


def test_draws_follow_the_generators():
    args = SpecAugment(), np.ones((120, 600, 80), np.float32), np.zeros((120, 600), np.float32)
    for augment in (augment_in_torch, augment_in_jax):
        assert (augment(*args, 5) == augment(*args, 5)).all() and (
            augment(*args, 5) != augment(*args, 6)
        ).any()


def test_torch_compiles_both_whole():
    features = speech_features_torch.LogMelFeatures(SMALL)

    def both(audio, padding):
        log_mels, frame_padding = features(audio, padding)
        return speech_features_torch.spec_augment(SpecAugment(), log_mels, frame_padding), frame_padding

    audio, padding = map(torch.from_numpy, speech(SMALL, 1000, [1000, 600], np.float32))
    compiled = torch.compile(both, fullgraph=True, backend="aot_eager")
    try:
        hidden, frame_padding = compiled(audio, padding)
        with torch._dynamo.config.patch(error_on_recompile=True):
            again, _ = compiled(audio, padding)
    finally:
        torch._dynamo.reset()
    wanted, wanted_padding = features(audio, padding)
    torch.testing.assert_close(frame_padding, wanted_padding)
    torch.testing.assert_close(torch.where(hidden == 0, 0, wanted), hidden)
    assert not torch.equal(again, hidden)


def test_torch_features_do_not_follow_autocast():
    """A submission that trains in bfloat16 hears what others hear."""
    features = speech_features_torch.LogMelFeatures(FULL)
    audio, padding = map(torch.from_numpy, speech(FULL, 2000, [2000], np.float32))
    with torch.autocast("cpu", torch.bfloat16):
        inside, _ = features(audio, padding)
    torch.testing.assert_close(inside, features(audio, padding)[0], rtol=0, atol=0)
