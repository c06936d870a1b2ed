"""Log-mel features of audio, with SpecAugment's spans hidden: two kernels around torch's FFT.

    s_n    = audio_bn (1 - padding_bn)
    z_tn   = (s[hop t + n] - c s[hop t + max(n - 1, 0)]) window_n      n below L; z = 0 from there up to M
    P_tj   = |sum_n z_tn exp(-2 pi i n j / M)|^2                       j from 0 to M / 2
    y_btf  = (log max(sum_j P_tj mel_jf, floor) - mean_f) / deviation_f;  0 where hidden_bt or hidden_bf

of audio and padding (B, N), padding 1.0 where there is nothing, else 0.0. T frames of L + 1 samples begin every hop
samples; the last sample of each counts for nothing. The samples' scale is in the window. float32 throughout. A NaN
makes its frames' features NaN, hidden ones excepted. There is no gradient: where one is asked for, plain torch runs.

`_frames` stores z, cuFFT transforms it, `_mel` reads the spectra and does all the rest. mel is dense here, although
nearly all 0. A product of float32 is three of TF32, of factors in two parts of 11 bits, and no sum loses digits to
another's sign; one of TF32 would be a thousand times as far off (tests/test_kernel_log_mel.py emulates both).

Bytes at librispeech's B 256, N 320,000, T 1,998, L 400, M 512 and 80 features: inputs and features are 655 and 164 MB,
0.19 ms at an H200's 4.25 TB/s; z and spectra, stored and read, 4.2 GB more, 0.99 ms; products 63 GFLOP of TF32, all
three, 0.16 ms. Frames go through in chunks, so that z and spectra take little memory. As one kernel, the transform by
products of TF32, it took 9 ms on an H200, and plain torch, which stores powers, mel and frames of L too, 7.8 ms.
"""

import math
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from timetrial.kernels.choice import Choice
from timetrial.kernels.kernel import (
    Arguments,
    Case,
    Cost,
    Kernel,
    Launch,
    power_of_two,
    shape_of,
    size_in_bytes,
    unsuitable,
)

# A multiple of all rows below: 268 MB of frames and as much of spectra. On an H200 chunks of 8,192, which its
# level-2 cache would hold, took 1.5 times as long as one of all, and 131,072 no longer than that.
CHUNK_FRAMES = 131_072
# Rows, samples and warps: each of 128 threads stores 16 bytes of each of 4 rows.
FRAMES = Choice(
    kernel="log_mel", launch="frames", passes="forward", options={4: ((4, 512, 4), (8, 512, 8), (4, 512, 8))}
)
# Rows, frequencies together, warps and stages. On an H200, 32 rows took 0.7 of what 64 took, which are one matrix
# instruction: more programs are at work.
MEL = Choice(
    kernel="log_mel",
    launch="mel",
    passes="forward",
    options={4: ((32, 32, 4, 3), (32, 32, 2, 4), (64, 32, 4, 3))},
)
LEAST_BINS, LARGEST_BINS = 16, 128  # of a matrix instruction; that registers hold


def reference(
    audio_BN: Tensor, padding_BN: Tensor, window_L: Tensor, mel_JF: Tensor, means_F: Tensor, deviations_F: Tensor,
    hidden_BT: Tensor | None, hidden_BF: Tensor | None, hop: int, pre_emphasis: float, floor: float,
) -> Tensor:  # fmt: skip
    """Features (B, T, F). Constants are of audio's dtype; no product is in less."""
    frames_BTN = (audio_BN * (1 - padding_BN)).unfold(1, len(window_L) + 1, hop)
    first = (1 - pre_emphasis) * frames_BTN[..., :1]
    emphasised = torch.cat((first, frames_BTN[..., 1:-1] - pre_emphasis * frames_BTN[..., :-2]), -1)
    with torch.autocast(audio_BN.device.type, enabled=False):
        spectrum = torch.fft.rfft(emphasised * window_L, 2 * (len(mel_JF) - 1))
        mel_BTF = torch.view_as_real(spectrum).square().sum(-1) @ mel_JF
    features_BTF = (mel_BTF.clamp_min(floor).log() - means_F) / deviations_F
    if hidden_BT is not None and hidden_BF is not None:
        features_BTF = features_BTF.masked_fill(hidden_BT[:, :, None] | hidden_BF[:, None], 0.0)
    return features_BTF


@triton.jit
def _samples(audio, padding, at, inside):
    samples = tl.load(audio + at, mask=inside, other=0.0)
    return samples * (1 - tl.load(padding + at, mask=inside, other=0.0))


@triton.jit
def _frames(
    audio, padding, window, frames, first, num_rows, num_frames, num_samples, length, fft_size, hop, pre_emphasis,
    ROWS: tl.constexpr, SAMPLES: tl.constexpr,
):  # fmt: skip
    """Rows of `frames`, the first of which is row `first` of all: windowed samples, then zeros."""
    start = tl.program_id(0) * ROWS
    row = first + start + tl.arange(0, ROWS)
    exists = (row < num_rows)[:, None]
    begin = ((row // num_frames).to(tl.int64) * num_samples + row % num_frames * hop)[:, None]
    n = tl.program_id(1) * SAMPLES + tl.arange(0, SAMPLES)[None, :]
    inside = exists & (n < length)
    now = _samples(audio, padding, begin + n, inside)
    # Of four samples side by side, the ones before them are three of the same and another. The very first has itself.
    of_four = tl.program_id(1) * SAMPLES + 4 * tl.arange(0, SAMPLES // 4)[None, :]
    before = of_four - (of_four > 0).to(tl.int32)
    another = _samples(audio, padding, begin + before, exists & (of_four < length))
    even, odd = tl.split(tl.reshape(now, (ROWS, SAMPLES // 4, 2, 2)))
    now_0, now_2 = tl.split(even)
    now_1, _ = tl.split(odd)
    previous = tl.join(tl.join(another, now_1), tl.join(now_0, now_2))
    previous = tl.reshape(previous, (ROWS, SAMPLES))
    weight = tl.load(window + n, mask=n < length, other=0.0)
    z = tl.where(inside, (now - pre_emphasis * previous) * weight, 0.0)
    frames += start.to(tl.int64) * fft_size
    tl.store(frames + tl.arange(0, ROWS)[:, None] * fft_size + n, z, mask=exists & (n < fft_size))


@triton.jit
def _high(x):
    """The part of float32 that TF32 holds: 11 of 24 bits."""
    return (x.to(tl.int32, bitcast=True) & -8192).to(tl.float32, bitcast=True)


@triton.jit
def _highest(power, mel, half, f, num_bins):
    """What the highest frequency, one more than whole blocks have, adds to the bins f."""
    return power[:, None] * tl.load(mel + half * num_bins + f, mask=f < num_bins, other=0.0)[None, :]


@triton.jit
def _product(total, powers, mel, j, half, f, num_bins):
    """total + powers @ mel, but for the product of both lower parts, 2^-22 of the whole."""
    inside = (j < half)[:, None] & (f < num_bins)[None, :]
    weights = tl.load(mel + j[:, None] * num_bins + f[None, :], mask=inside, other=0.0)
    powers_high, weights_high = _high(powers), _high(weights)
    total = tl.dot(powers - powers_high, weights_high, total, input_precision="tf32")
    total = tl.dot(powers_high, weights - weights_high, total, input_precision="tf32")
    return tl.dot(powers_high, weights_high, total, input_precision="tf32")


@triton.jit
def _store(
    total, means, deviations, hidden_frames, hidden_bins, features, row, exists, batch, f, num_bins, floor,
    HAS_HIDDEN: tl.constexpr,
):  # fmt: skip
    is_bin = f < num_bins
    inside = exists[:, None] & is_bin[None, :]
    mean = tl.load(means + f, mask=is_bin, other=0.0)[None, :]
    per_deviation = (1 / tl.load(deviations + f, mask=is_bin, other=1.0))[None, :]
    out = (tl.log(tl.maximum(total, floor, propagate_nan=tl.PropagateNan.ALL)) - mean) * per_deviation
    if HAS_HIDDEN:
        is_hidden = tl.load(hidden_frames + row, mask=exists, other=0)[:, None] != 0
        at = hidden_bins + batch[:, None] * num_bins + f[None, :]
        is_hidden = is_hidden | (tl.load(at, mask=inside, other=0) != 0)
        out = tl.where(is_hidden, 0.0, out)
    tl.store(features + row[:, None] * num_bins + f[None, :], out, mask=inside)


@triton.jit
def _mel(
    spectra, mel, means, deviations, hidden_frames, hidden_bins, features,
    first, num_rows, num_frames, num_bins, half, floor,
    HAS_HIDDEN: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr, BINS: tl.constexpr, MORE_BINS: tl.constexpr,
):  # fmt: skip
    """Features from spectra of half + 1 complex numbers a row; the first row is row `first` of all.

    The bins are in two groups, as 80 are 64 and 16.
    """
    start = tl.program_id(0) * ROWS
    row = tl.arange(0, ROWS)
    exists = first + start + row < num_rows
    batch = (first + start + row) // num_frames
    width = 2 * (half + 1)
    at = spectra + start.to(tl.int64) * width + row * width
    f, more_f = tl.arange(0, BINS), BINS + tl.arange(0, max(MORE_BINS, 1))
    real = tl.load(at + 2 * half, mask=exists, other=0.0)
    imaginary = tl.load(at + 2 * half + 1, mask=exists, other=0.0)
    power = real * real + imaginary * imaginary
    total, more = _highest(power, mel, half, f, num_bins), _highest(power, mel, half, more_f, num_bins)
    for begin in range(0, half, BLOCK):
        # 8 bytes at a time, since half of all rows begin between multiples of 16; a warp still reads 256 in a row.
        place = 2 * begin + tl.arange(0, 2 * BLOCK)
        inside = exists[:, None] & (place < 2 * half)[None, :]
        parts = tl.load(at[:, None] + place[None, :], mask=inside, other=0.0)
        powers = tl.sum(tl.reshape(parts * parts, (ROWS, BLOCK, 2)), 2)
        j = begin + tl.arange(0, BLOCK)
        if MORE_BINS:
            more = _product(more, powers, mel, j, half, more_f, num_bins)
        total = _product(total, powers, mel, j, half, f, num_bins)
    before = (first + start).to(tl.int64)
    features += before * num_bins
    if HAS_HIDDEN:
        hidden_frames += before
    _store(
        total, means, deviations, hidden_frames, hidden_bins, features, row, exists, batch, f, num_bins, floor,
        HAS_HIDDEN,
    )  # fmt: skip
    if MORE_BINS:
        _store(
            more, means, deviations, hidden_frames, hidden_bins, features, row, exists, batch, more_f, num_bins, floor,
            HAS_HIDDEN,
        )  # fmt: skip


def _groups(bins: int) -> dict[str, int]:
    """Powers of two that cover the bins, the second 0 where one does."""
    whole = max(power_of_two(bins + 1) // 2, LEAST_BINS)
    more = max(power_of_two(bins - whole), LEAST_BINS) if bins > whole else 0
    return {"BINS": whole, "MORE_BINS": more}


@torch.library.custom_op("timetrial::log_mel", mutates_args=())
def _fused(
    audio: Tensor, padding: Tensor, window: Tensor, mel: Tensor, means: Tensor, deviations: Tensor,
    hidden_frames: Tensor | None, hidden_bins: Tensor | None, hop: int, pre_emphasis: float, floor: float,
) -> Tensor:  # fmt: skip
    batch, samples = audio.shape
    half, bins, num_frames = len(mel) - 1, len(means), _num_frames(samples, len(window), hop)
    rows = batch * num_frames
    features = audio.new_empty(batch, num_frames, bins)
    frames = audio.new_empty(min(rows, CHUNK_FRAMES), 2 * half)
    (height, width, frames_warps), (mel_rows, block, mel_warps, mel_stages) = FRAMES[4], MEL[4]
    for first in range(0, rows, CHUNK_FRAMES):
        count = min(rows - first, CHUNK_FRAMES)
        _frames[(triton.cdiv(count, height), triton.cdiv(2 * half, width))](
            audio, padding, window, frames, first, rows, num_frames, samples, len(window), 2 * half, hop, pre_emphasis,
            ROWS=height, SAMPLES=width, num_warps=frames_warps,
        )  # fmt: skip
        # Has no name, so that the next chunk's spectra get the same memory. rfft's `out` would be a copy on a GPU.
        _mel[(triton.cdiv(count, mel_rows),)](
            torch.view_as_real(torch.fft.rfft(frames[:count])),
            mel, means, deviations, hidden_frames, hidden_bins, features,
            first, rows, num_frames, bins, half, floor, HAS_HIDDEN=hidden_frames is not None, ROWS=mel_rows,
            BLOCK=block, **_groups(bins), num_warps=mel_warps, num_stages=mel_stages,
        )  # fmt: skip
    return features


@_fused.register_fake
def _(
    audio: Tensor, padding: Tensor, window: Tensor, mel: Tensor, means: Tensor, deviations: Tensor,
    hidden_frames: Tensor | None, hidden_bins: Tensor | None, hop: int, pre_emphasis: float, floor: float,
) -> Tensor:  # fmt: skip
    return audio.new_empty(len(audio), _num_frames(audio.shape[1], len(window), hop), len(means))


def _num_frames(samples: int, length: int, hop: int) -> int:
    return (samples - length - 1) // hop + 1


def fused(
    audio_BN: Tensor, padding_BN: Tensor, window_L: Tensor, mel_JF: Tensor, means_F: Tensor, deviations_F: Tensor,
    hidden_BT: Tensor | None, hidden_BF: Tensor | None, hop: int, pre_emphasis: float, floor: float,
) -> Tensor:  # fmt: skip
    """As `reference`, of contiguous tensors of float32 (hidden: bool), without a gradient."""
    features_BTF: Tensor = _fused(
        audio_BN, padding_BN, window_L, mel_JF, means_F, deviations_F, hidden_BT, hidden_BF,
        hop, pre_emphasis, floor,
    )  # fmt: skip
    return features_BTF


def why_not(
    audio_BN: Tensor, padding_BN: Tensor, window_L: Tensor, mel_JF: Tensor, means_F: Tensor, deviations_F: Tensor,
    hidden_BT: Tensor | None, hidden_BF: Tensor | None, hop: int, pre_emphasis: float, floor: float,
) -> str | None:  # fmt: skip
    """Why the fused form does not apply, or None."""
    del hop, pre_emphasis, floor
    values = (audio_BN, padding_BN, window_L, mel_JF, means_F, deviations_F)
    bins, fft_size = len(means_F), 2 * (len(mel_JF) - 1)
    if audio_BN.ndim != 2 or audio_BN.shape != padding_BN.shape or audio_BN.shape[1] <= len(window_L):
        return (
            f"audio is {shape_of(audio_BN)}, padding {shape_of(padding_BN)}: both should be (B, N), N above L"
        )
    if fft_size < len(window_L):
        return f"mel is {shape_of(mel_JF)}, the window {shape_of(window_L)}: half as many rows and one are the least"
    if mel_JF.shape[1] != bins or len(deviations_F) != bins or not 1 <= bins <= LARGEST_BINS:
        return (
            f"mel is {shape_of(mel_JF)}, means {shape_of(means_F)}: of as many bins each, 1 to {LARGEST_BINS}"
        )
    if (hidden_BT is None) != (hidden_BF is None):
        return "frames and bins should both have hidden ones, or neither"
    if torch.is_grad_enabled() and any(value.requires_grad for value in values):
        return "a gradient is asked for, and the fused form has none"
    for value in values:
        if value.dtype != torch.float32:
            return f"a tensor is of {value.dtype}: it should be of float32"
    return unsuitable(audio_BN, *values[1:], hidden_BT, hidden_BF)


def _case(
    name: str, batch: int, samples: int, *, length: int = 50, hop: int = 20, half: int = 32, bins: int = 10,
    hides: bool = True, padded: float = 0.4, loudness: float = 300.0, **kind: Any,
) -> Case:  # fmt: skip
    def make(generator: torch.Generator, dtype: torch.dtype, device: torch.device) -> Arguments:
        def uniform(*shape: int) -> Tensor:
            return torch.rand(shape, generator=generator, device=device)

        place = torch.arange(samples, device=device)
        # A loud tone beside quiet noise: what is lost of the one would drown the other.
        noise = torch.randn((batch, samples), generator=generator, device=device)
        audio = loudness * ((0.3 * place).sin() + 0.01 * noise)
        padding = (place >= samples * (1 - padded * uniform(batch, 1))).float()
        window = (0.5 - 0.5 * (2 * math.pi / length * torch.arange(length, device=device)).cos()) / 32_768
        frequency = torch.linspace(0, bins + 1, half + 1, device=device)[:, None]
        mel = (1 - (frequency - torch.arange(1, bins + 1, device=device)).abs()).clamp_min(0) + 0.01
        frames = _num_frames(samples, length, hop)
        hidden = (uniform(batch, frames) < 0.2, uniform(batch, bins) < 0.2) if hides else (None, None)
        constants = (window, mel, uniform(bins) - 7, uniform(bins) + 3)
        return audio.to(dtype), padding, *(x.to(dtype) for x in constants), *hidden, hop, 0.97, 1e-5

    return Case(name=name, make=make, **kind)


def forward_cost(audio: Tensor, padding: Tensor, window: Tensor, *rest: Any) -> Cost:
    """Audio, padding and features. No operations of matrix products: a transform has none, and mel is nearly all 0."""
    features = _num_frames(audio.shape[1], len(window), rest[-3]) * len(rest[1])
    return Cost(bytes_moved=size_in_bytes(audio, padding) + 4 * len(audio) * features)


def backward_cost(*_: Any) -> Cost:
    """Nothing: there is no gradient."""
    return Cost(bytes_moved=0)


def _launches() -> tuple[Launch, ...]:
    """librispeech's, with hidden spans and without."""
    sizes = dict.fromkeys(("first", "num_rows", "num_frames"), "i32")
    of_frames = (
        dict.fromkeys(("audio", "padding", "window", "frames"), "*fp32")
        | sizes
        | dict.fromkeys(("num_samples", "length", "fft_size", "hop"), "i32")
        | {"pre_emphasis": "fp32"}
    )
    numbers = dict.fromkeys(("spectra", "mel", "means", "deviations", "features"), "*fp32")
    hidden = ("hidden_frames", "hidden_bins")
    of_mel = numbers | sizes | dict.fromkeys(("num_bins", "half"), "i32") | {"floor": "fp32"}
    (height, width, frames_warps), (mel_rows, block, mel_warps, mel_stages) = FRAMES[4], MEL[4]
    constants = {"ROWS": mel_rows, "BLOCK": block, **_groups(80)}
    both = (
        (of_mel | dict.fromkeys(hidden, "*i1"), constants | {"HAS_HIDDEN": True}),
        (of_mel, constants | {"HAS_HIDDEN": False} | dict.fromkeys(hidden)),
    )

    def divisible(signature: dict[str, str]) -> tuple[str, ...]:
        return tuple(name for name in signature if name != "num_frames")

    frames = Launch(
        function=_frames,
        signature=of_frames,
        constants={"ROWS": height, "SAMPLES": width},
        num_warps=frames_warps,
        divisible=divisible(of_frames),
    )
    mels = (
        Launch(
            function=_mel,
            signature=signature,
            constants=constants,
            num_warps=mel_warps,
            num_stages=mel_stages,
            divisible=divisible(signature),
            is_matrix=True,
        )
        for signature, constants in both
    )
    return (frames, *mels)


KERNEL = Kernel(
    name="log_mel",
    reference=reference,
    fused=fused,
    why_not=why_not,
    cases=(
        _case("plain", 2, 131),
        _case("ragged", 2, 50 + 1 + 66 * 20 + 7, half=37, bins=19),
        _case("nothing hidden", 2, 60, hides=False),
        _case("all padding", 2, 90, padded=1e9),
        _case("loud", 2, 131, loudness=30_000.0),
        _case("quiet", 2, 131, loudness=1e-3),
        _case("moderate", 4, 16_000, length=400, hop=160, half=256, bins=80, size="moderate"),
        _case("librispeech", 256, 320_000, length=400, hop=160, half=256, bins=80, size="large"),
    ),
    forward_cost=forward_cost,
    backward_cost=backward_cost,
    launches=_launches,
    choices=(FRAMES, MEL),
    # Powers are sums of squares of a transform that cuFFT may take in another order for other sizes.
    slack={"float32": 4e-6},
    dtypes=("float32",),
)
