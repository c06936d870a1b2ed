"""Log-mel features of audio, with SpecAugment's spans hidden: two kernels around torch's FFT.

    s_n    = audio_bn (1 - padding_bn)
    z_tn   = (s[hop t + n] - c s[hop t + max(n - 1, 0)]) window_n      n below L; z = 0 from there up to M
    P_tj   = |sum_n z_tn exp(-2 pi i n j / M)|^2                       j from 0 to M / 2
    y_btf  = (log max(sum_j P_tj mel_jf, floor) - mean_f) / deviation_f;  0 where hidden_bt or hidden_bf

of audio and padding (B, N), padding 1.0 where there is nothing, else 0.0. T frames of L + 1 samples begin every hop
samples; the last sample of each counts for nothing. The samples' scale is in the window. float32 throughout. A NaN
makes its frames' features NaN, hidden ones excepted. There is no gradient: where one is asked for, plain torch runs.

TODO
"""

import math
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from timetrial.kernels.kernel import (
    Arguments,
    Case,
    Cost,
    Kernel,
    Launch,
    power_of_two,
    size_in_bytes,
    unsuitable,
)

CHUNK_FRAMES = 8_192
# `_frames`: a program's 4 rows of 512 samples are 4 times 16 bytes of each of 128 threads.
ROWS, SAMPLES, FRAMES_WARPS = 4, 512, 4
# `_mel`
MEL_ROWS, BLOCK, MEL_WARPS, MEL_STAGES = 64, 32, 4, 3
LEAST_BINS, LARGEST_BINS = 16, 128


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
    # Each sample is in three frames: what follows evicts it first, so that the chunk's frames stay.
    samples = tl.load(audio + at, mask=inside, other=0.0)
    return samples * (1 - tl.load(padding + at, mask=inside, other=0.0))


@triton.jit
def _frames(
    audio, padding, window, frames, first, num_rows, num_frames, num_samples, length, fft_size, hop, pre_emphasis,
    ROWS: tl.constexpr, SAMPLES: tl.constexpr,
):  # fmt: skip
    """Rows of all frames from `first` on: windowed samples, then zeros."""
    row = first + tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    exists = (row < num_rows)[:, None]
    begin = (row // num_frames * num_samples + row % num_frames * hop)[:, None]
    # Samples are read four at a time; of those before them, three are among the same four.
    n = tl.program_id(1) * SAMPLES + tl.arange(0, SAMPLES)[None, :]
    inside = exists & (n < length)
    now = _samples(audio, padding, begin + n, inside)
    of_four = tl.program_id(1) * SAMPLES + 4 * tl.arange(0, SAMPLES // 4)[None, :]
    at = begin + of_four - (of_four > 0).to(tl.int32)
    before = _samples(audio, padding, at, exists & (of_four < length))
    even, odd = tl.split(tl.reshape(now, (ROWS, SAMPLES // 4, 2, 2)))
    zeroth, second = tl.split(even)
    oneth, _ = tl.split(odd)
    previous = tl.join(tl.join(before, oneth), tl.join(zeroth, second))
    previous = tl.reshape(previous, (ROWS, SAMPLES))
    weight = tl.load(window + n, mask=n < length, other=0.0)
    z = tl.where(inside, (now - pre_emphasis * previous) * weight, 0.0)
    tl.store(frames + (row - first)[:, None] * fft_size + n, z, mask=exists & (n < fft_size))


@triton.jit
def _high(x):
    """The part of float32 that TF32 holds: 11 of 24 bits."""
    return (x.to(tl.int32, bitcast=True) & -8192).to(tl.float32, bitcast=True)


@triton.jit
def _mel(
    spectra, mel, means, deviations, hidden_frames, hidden_bins, features,
    first, num_rows, num_frames, num_bins, half, floor,
    HAS_HIDDEN: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr, BINS: tl.constexpr,
):  # fmt: skip
    """Features from spectra of half + 1 complex numbers a row; the first row is frame `first` of all."""
    start = tl.program_id(0).to(tl.int64) * ROWS
    row = tl.arange(0, ROWS)
    frame = first + start + row
    exists = frame < num_rows
    f = tl.arange(0, BINS)
    is_bin = f < num_bins
    width = 2 * (half + 1)
    at = spectra + start * width + row * width
    # The highest frequency is one more than whole blocks have.
    real = tl.load(at + 2 * half, mask=exists, other=0.0)
    imaginary = tl.load(at + 2 * half + 1, mask=exists, other=0.0)
    highest = real * real + imaginary * imaginary
    total = highest[:, None] * tl.load(mel + half * num_bins + f, mask=is_bin, other=0.0)[None, :]
    for begin in range(0, half, BLOCK):
        place = 2 * begin + tl.arange(0, 2 * BLOCK)
        inside = exists[:, None] & (place < 2 * half)[None, :]
        parts = tl.load(at[:, None] + place[None, :], mask=inside, other=0.0)
        powers = tl.sum(tl.reshape(parts * parts, (ROWS, BLOCK, 2)), 2)
        j = begin + tl.arange(0, BLOCK)
        inside = (j < half)[:, None] & is_bin[None, :]
        weights = tl.load(mel + j[:, None] * num_bins + f[None, :], mask=inside, other=0.0)
        powers_high, weights_high = _high(powers), _high(weights)
        total = tl.dot(powers - powers_high, weights_high, total, input_precision="tf32")
        total = tl.dot(powers_high, weights - weights_high, total, input_precision="tf32")
        total = tl.dot(powers_high, weights_high, total, input_precision="tf32")
    mean = tl.load(means + f, mask=is_bin, other=0.0)[None, :]
    deviation = tl.load(deviations + f, mask=is_bin, other=1.0)[None, :]
    out = (tl.log(tl.maximum(total, floor, propagate_nan=tl.PropagateNan.ALL)) - mean) / deviation
    inside = exists[:, None] & is_bin[None, :]
    if HAS_HIDDEN:
        is_hidden = tl.load(hidden_frames + frame, mask=exists, other=0)[:, None] != 0
        of_batch = hidden_bins + (frame // num_frames)[:, None] * num_bins
        is_hidden = is_hidden | (tl.load(of_batch + f[None, :], mask=inside, other=0) != 0)
        out = tl.where(is_hidden, 0.0, out)
    tl.store(features + frame[:, None] * num_bins + f[None, :], out, mask=inside)


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
    for first in range(0, rows, CHUNK_FRAMES):
        count = min(rows - first, CHUNK_FRAMES)
        _frames[(triton.cdiv(count, ROWS), triton.cdiv(2 * half, SAMPLES))](
            audio, padding, window, frames, first, rows, num_frames, samples, len(window), 2 * half, hop, pre_emphasis,
            ROWS=ROWS, SAMPLES=SAMPLES, num_warps=FRAMES_WARPS,
        )  # fmt: skip
        # Has no name, so that the next chunk's spectra get the same memory. rfft's `out` would be a copy on a GPU.
        _mel[(triton.cdiv(count, MEL_ROWS),)](
            torch.view_as_real(torch.fft.rfft(frames[:count])),
            mel, means, deviations, hidden_frames, hidden_bins, features,
            first, rows, num_frames, bins, half, floor, HAS_HIDDEN=hidden_frames is not None, ROWS=MEL_ROWS,
            BLOCK=BLOCK, BINS=max(power_of_two(bins), LEAST_BINS), num_warps=MEL_WARPS, num_stages=MEL_STAGES,
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
        return f"audio is {tuple(audio_BN.shape)}, padding {tuple(padding_BN.shape)}: both should be (B, N), N above L"
    if fft_size < len(window_L):
        return (
            f"mel has {len(mel_JF)} rows: half the window's {len(window_L)} samples, and one, are the least"
        )
    if mel_JF.shape[1] != bins or len(deviations_F) != bins or not 1 <= bins <= LARGEST_BINS:
        return f"mel is {tuple(mel_JF.shape)}, of {bins} means: it should have as many columns, 1 to {LARGEST_BINS}"
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
    constants = {"ROWS": MEL_ROWS, "BLOCK": BLOCK, "BINS": 128}
    both = (
        (of_mel | dict.fromkeys(hidden, "*i1"), constants | {"HAS_HIDDEN": True}),
        (of_mel, constants | {"HAS_HIDDEN": False} | dict.fromkeys(hidden)),
    )

    def divisible(signature: dict[str, str]) -> tuple[str, ...]:
        return tuple(name for name in signature if name != "num_frames")

    frames = Launch(
        function=_frames,
        signature=of_frames,
        constants={"ROWS": ROWS, "SAMPLES": SAMPLES},
        num_warps=FRAMES_WARPS,
        divisible=divisible(of_frames),
    )
    mels = (
        Launch(
            function=_mel,
            signature=signature,
            constants=constants,
            num_warps=MEL_WARPS,
            num_stages=MEL_STAGES,
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
    launches=_launches(),
    dtypes=("float32",),
)
