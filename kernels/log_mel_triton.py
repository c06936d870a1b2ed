"""Log-mel features of audio, with SpecAugment's spans hidden: from samples to features in one kernel.

    s_n    = audio_bn (1 - padding_bn)
    z_tn   = (s[hop t + n] - c s[hop t + max(n - 1, 0)]) window_n      n below L; z = 0 from there up to M
    P_tj   = |sum_n z_tn exp(-2 pi i n j / M)|^2                       j from 0 to M / 2
    y_btf  = (log max(sum_j P_tj mel_jf, floor) - mean_f) / deviation_f;  0 where hidden_bt or hidden_bf

of audio and padding (B, N), padding 1.0 where there is nothing, else 0.0. T frames of L + 1 samples begin every hop
samples; the last sample of each counts for nothing. The samples' scale is in the window. float32 throughout. A NaN
makes its frames' features NaN, hidden ones excepted. There is no gradient: where one is asked for, plain torch runs.

The transform is a matrix product, for what a call of an FFT stores and reads costs more. z is folded twice, since with
Q = M / 4 cosines and sines at n, 2Q - n, 2Q + n and 4Q - n differ only in sign, by whether j is even: four products of
T x Q with Q x Q, `waves`, and what n = Q adds. A program makes the powers of 64 frames, of even frequencies and then of
odd ones, and multiplies them with mel while they are in registers. A product of float32 is three of TF32, of factors in
two parts of 11 bits, and its error is about twice an FFT's in float32; one of TF32 would be a thousand times as far off
where quiet frequencies lie beside loud ones (tests/test_kernel_log_mel.py emulates both). Sums are float32.

At librispeech's B 256, N 320,000, T 1,998, L 400, M 512 and 80 features, counted, not measured on a GPU:
    this       audio and padding 655 MB, features 164 MB: 0.27 ms at 3 TB/s. The waves' 131 kFLOP a frame (370 if not
               folded) and mel's 49 are 276 GFLOP of TF32: 0.56 ms at 495 TFLOP/s. 2.1 G loads of 4 bytes from the first
               cache: 0.28 ms at 32 a clock on 132 multiprocessors of 1.75 GHz. Factors through shared memory: 5 MB for
               64 frames, 1.35 ms at 128 bytes a clock, the longest; one program a multiprocessor overlaps little of it
    with FFT   4.2 GB more, if all else is fused: frames of M and their spectra, each stored and read: 1.7 ms
    plain      power, mel, logarithms too, and frames of L before those of M: about 8 GB, 2.7 ms
So against plain torch it should gain much, against two kernels around an FFT little or nothing: to be measured.
"""

import math
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from timetrial.kernels.kernel import Arguments, Case, Cost, Kernel, Launch, size_in_bytes, unsuitable

FRAMES = 64  # of a program, as one matrix instruction of a Hopper has rows
CHUNK = 16  # samples of each of the four parts that are folded together
BINS = 32  # mel bins at a time: 80 are two and a half times as many, and 64 at a time would spill
WARPS = 8  # two sums of 64 x 128 are 64 registers of a thread
LEAST_QUARTER, LARGEST_QUARTER = 16, 128


def waves(fft_size: int, device: torch.device | None = None) -> Tensor:
    """Cosines and sines of even, then of odd frequencies: (4, frequencies, samples), fft_size / 4 each, float64."""
    quarter = torch.arange(fft_size // 4, dtype=torch.float64, device=device)
    even, odd = (2 * math.pi / fft_size * (2 * quarter[:, None] + k) * quarter for k in (0, 1))
    return torch.stack((even.cos(), even.sin(), odd.cos(), odd.sin()))


def reference(
    audio_BN: Tensor, padding_BN: Tensor, window_L: Tensor, waves_4QQ: Tensor, mel_JF: Tensor,
    means_F: Tensor, deviations_F: Tensor, hidden_BT: Tensor | None, hidden_BF: Tensor | None,
    hop: int, pre_emphasis: float, floor: float,
) -> Tensor:  # fmt: skip
    """Features (B, T, F). Constants are of audio's dtype; no product is in less."""
    del waves_4QQ
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
def _samples(audio, padding, window, begin, place, length, is_frame, pre_emphasis):
    """Windowed samples at `place` of the frames that begin at `begin`, 0 beyond the window."""
    known = (place >= 0) & (place < length)
    inside = is_frame[:, None] & known[None, :]
    at = begin[:, None] + place[None, :]
    now = tl.load(audio + at, mask=inside, other=0.0) * (1 - tl.load(padding + at, mask=inside, other=0.0))
    at -= (place > 0).to(tl.int32)[None, :]
    before = tl.load(audio + at, mask=inside, other=0.0) * (1 - tl.load(padding + at, mask=inside, other=0.0))
    return (now - pre_emphasis * before) * tl.load(window + place, mask=known, other=0.0)[None, :]


@triton.jit
def _high(x):
    """The part of float32 that TF32 holds: 11 of 24 bits."""
    return (x.to(tl.int32, bitcast=True) & -8192).to(tl.float32, bitcast=True)


@triton.jit
def _dot(a, b, total):
    """total + a @ b but for the product of both lower parts, 2^-22 of the whole.

    A loop, since of products in a row (tf32x3 is one) Triton has both warp groups compute all, and sums spill.
    """
    a_high, b_high = _high(a), _high(b)
    a_low, b_low = a - a_high, b - b_high
    for part in range(3):
        left, right = tl.where(part == 0, a_low, a_high), tl.where(part == 1, b_low, b_high)
        total = tl.dot(left, right, total, input_precision="tf32")
    return total


@triton.jit
def _power(
    audio, padding, window, waves, begin, length, is_frame, pre_emphasis,
    PARITY: tl.constexpr, QUARTER: tl.constexpr, CHUNK: tl.constexpr, FRAMES: tl.constexpr,
):  # fmt: skip
    """Powers of the even frequencies or of the odd ones, and the power of the highest one, M / 2 (0 with the odd)."""
    frequency = tl.arange(0, QUARTER)
    side: tl.constexpr = 1 - 2 * PARITY
    waves += 2 * PARITY * QUARTER * QUARTER
    # What n = QUARTER adds: to cosines of even frequencies and to sines of odd ones.
    middle = QUARTER * (1 + 2 * tl.arange(0, 2))
    z = _samples(audio, padding, window, begin, middle, length, is_frame, pre_emphasis)
    highest = tl.sum(z * tl.where(middle > QUARTER, side, 1)[None, :], 1)
    extra = highest[:, None] * (1 - 2 * (frequency % 2))[None, :]
    none = tl.zeros((FRAMES, QUARTER), tl.float32)
    cosine, sine = (none, extra) if PARITY else (extra, none)
    for first in range(0, QUARTER, CHUNK):
        n = first + tl.arange(0, CHUNK)
        a = _samples(audio, padding, window, begin, n, length, is_frame, pre_emphasis)
        b = _samples(audio, padding, window, begin, 4 * QUARTER - n, length, is_frame, pre_emphasis)
        c = _samples(audio, padding, window, begin, 2 * QUARTER - n, length, is_frame, pre_emphasis)
        # Sample 2 QUARTER counts once: it is c for n = 0, and d lies beyond the window there, as b does.
        far = tl.where(n > 0, 2 * QUARTER + n, 4 * QUARTER)
        d = _samples(audio, padding, window, begin, far, length, is_frame, pre_emphasis)
        wave = waves + frequency[None, :] * QUARTER + n[:, None]
        folded = (a + b) + side * (c + d)
        cosine = _dot(folded, tl.load(wave), cosine)
        if PARITY == 0:
            highest += tl.sum(folded * (1 - 2 * (n % 2))[None, :], 1)
        folded = (a - b) - side * (c - d)
        sine = _dot(folded, tl.load(wave + QUARTER * QUARTER), sine)
    return cosine * cosine + sine * sine, highest * highest


@triton.jit
def _forward(
    audio, padding, window, waves, mel, means, deviations, hidden_frames, hidden_bins, features,
    num_samples, num_frames, num_bins, length, hop, pre_emphasis, floor,
    HAS_HIDDEN: tl.constexpr, QUARTER: tl.constexpr, CHUNK: tl.constexpr, FRAMES: tl.constexpr, BINS: tl.constexpr,
):  # fmt: skip
    batch = tl.program_id(1).to(tl.int64)
    audio += batch * num_samples
    padding += batch * num_samples
    features += batch * num_frames * num_bins
    frame = tl.program_id(0) * FRAMES + tl.arange(0, FRAMES)
    is_frame = frame < num_frames
    frequency = tl.arange(0, QUARTER)
    if HAS_HIDDEN:
        hidden_bins += batch * num_bins
        is_hidden = tl.load(hidden_frames + batch * num_frames + frame, mask=is_frame, other=0) != 0
    for parity in tl.static_range(2):
        powers, highest = _power(
            audio, padding, window, waves, frame * hop, length, is_frame, pre_emphasis, parity, QUARTER, CHUNK, FRAMES
        )  # fmt: skip
        for first in range(0, num_bins, BINS):
            f = first + tl.arange(0, BINS)
            is_bin = f < num_bins
            inside = is_frame[:, None] & is_bin[None, :]
            at = features + frame[:, None] * num_bins + f[None, :]
            weight = mel + (2 * frequency + parity)[:, None] * num_bins + f[None, :]
            if parity == 0:
                of_highest = tl.load(mel + 2 * QUARTER * num_bins + f, mask=is_bin, other=0.0)
                out = highest[:, None] * of_highest[None, :]
            else:
                out = tl.load(at, mask=inside, other=0.0)
            weights = tl.load(weight, mask=is_bin[None, :], other=0.0)
            out = _dot(powers, weights, out)
            if parity == 1:
                mean = tl.load(means + f, mask=is_bin, other=0.0)
                deviation = tl.load(deviations + f, mask=is_bin, other=1.0)
                out = tl.log(tl.maximum(out, floor, propagate_nan=tl.PropagateNan.ALL))
                out = (out - mean[None, :]) / deviation[None, :]
                if HAS_HIDDEN:
                    is_hidden_bin = tl.load(hidden_bins + f, mask=is_bin, other=0) != 0
                    out = tl.where(is_hidden[:, None] | is_hidden_bin[None, :], 0.0, out)
            tl.store(at, out, mask=inside)
        # Mel powers of even frequencies wait in `features`, and another thread may read them.
        tl.debug_barrier()


@torch.library.custom_op("timetrial::log_mel", mutates_args=())
def _fused(
    audio: Tensor, padding: Tensor, window: Tensor, waves: Tensor, mel: Tensor, means: Tensor, deviations: Tensor,
    hidden_frames: Tensor | None, hidden_bins: Tensor | None, hop: int, pre_emphasis: float, floor: float,
) -> Tensor:  # fmt: skip
    batch, samples = audio.shape
    bins, frames = len(means), _num_frames(samples, len(window), hop)
    features = audio.new_empty(batch, frames, bins)
    quarter = waves.shape[1]
    if batch:
        _forward[(triton.cdiv(frames, FRAMES), batch)](
            audio, padding, window, waves, mel, means, deviations, hidden_frames, hidden_bins, features,
            samples, frames, bins, len(window), hop, pre_emphasis, floor,
            HAS_HIDDEN=hidden_frames is not None, QUARTER=quarter, CHUNK=min(CHUNK, quarter),
            FRAMES=FRAMES, BINS=BINS, num_warps=WARPS,
        )  # fmt: skip
    return features


@_fused.register_fake
def _(
    audio: Tensor, padding: Tensor, window: Tensor, waves: Tensor, mel: Tensor, means: Tensor, deviations: Tensor,
    hidden_frames: Tensor | None, hidden_bins: Tensor | None, hop: int, pre_emphasis: float, floor: float,
) -> Tensor:  # fmt: skip
    return audio.new_empty(len(audio), _num_frames(audio.shape[1], len(window), hop), len(means))


def _num_frames(samples: int, length: int, hop: int) -> int:
    return (samples - length - 1) // hop + 1


def fused(
    audio_BN: Tensor, padding_BN: Tensor, window_L: Tensor, waves_4QQ: Tensor, mel_JF: Tensor,
    means_F: Tensor, deviations_F: Tensor, hidden_BT: Tensor | None, hidden_BF: Tensor | None,
    hop: int, pre_emphasis: float, floor: float,
) -> Tensor:  # fmt: skip
    """As `reference`, of contiguous tensors of float32 (hidden: bool), without a gradient."""
    features_BTF: Tensor = _fused(
        audio_BN, padding_BN, window_L, waves_4QQ, mel_JF, means_F, deviations_F, hidden_BT, hidden_BF,
        hop, pre_emphasis, floor,
    )  # fmt: skip
    return features_BTF


def why_not(
    audio_BN: Tensor, padding_BN: Tensor, window_L: Tensor, waves_4QQ: Tensor, mel_JF: Tensor,
    means_F: Tensor, deviations_F: Tensor, hidden_BT: Tensor | None, hidden_BF: Tensor | None,
    hop: int, pre_emphasis: float, floor: float,
) -> str | None:  # fmt: skip
    """Why the fused form does not apply, or None."""
    del pre_emphasis, floor
    values = (audio_BN, padding_BN, window_L, waves_4QQ, mel_JF, means_F, deviations_F)
    quarter, bins = (len(mel_JF) - 1) // 2, len(means_F)
    if audio_BN.ndim != 2 or audio_BN.shape != padding_BN.shape or audio_BN.shape[1] <= len(window_L):
        return f"audio is {tuple(audio_BN.shape)}, padding {tuple(padding_BN.shape)}: both should be (B, N), N above L"
    if (
        not LEAST_QUARTER <= quarter <= LARGEST_QUARTER
        or quarter & (quarter - 1)
        or len(window_L) > 4 * quarter
    ):
        return f"mel has {len(mel_JF)} rows: it should have a power of two from 33 to 257 and one, and half the window"
    if waves_4QQ.shape != (4, quarter, quarter) or mel_JF.shape != (2 * quarter + 1, bins):
        return f"waves are {tuple(waves_4QQ.shape)} and mel {tuple(mel_JF.shape)}, of {bins} means"
    if (hidden_BT is None) != (hidden_BF is None):
        return "frames and bins should both have hidden ones, or neither"
    if torch.is_grad_enabled() and any(value.requires_grad for value in values):
        return "a gradient is asked for, and the fused form has none"
    for value in values:
        if value.dtype != torch.float32:
            return f"a tensor is of {value.dtype}: it should be of float32"
    del hop
    return unsuitable(audio_BN, *values[1:], hidden_BT, hidden_BF)


def _case(
    name: str, batch: int, samples: int, *, length: int = 50, hop: int = 20, quarter: int = 16, bins: int = 10,
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
        frequency = torch.linspace(0, bins + 1, 2 * quarter + 1, device=device)[:, None]
        mel = (1 - (frequency - torch.arange(1, bins + 1, device=device)).abs()).clamp_min(0) + 0.01
        frames = _num_frames(samples, length, hop)
        hidden = (uniform(batch, frames) < 0.2, uniform(batch, bins) < 0.2) if hides else (None, None)
        constants = (window, waves(4 * quarter, device), mel, uniform(bins) - 7, uniform(bins) + 3)
        return audio.to(dtype), padding, *(x.to(dtype) for x in constants), *hidden, hop, 0.97, 1e-5

    return Case(name=name, make=make, **kind)


def forward_cost(audio: Tensor, padding: Tensor, window: Tensor, *rest: Any) -> Cost:
    """Audio, padding and features; a fast transform's operations are none of matrix products."""
    features = _num_frames(audio.shape[1], len(window), rest[-3]) * len(rest[2])
    return Cost(bytes_moved=size_in_bytes(audio, padding) + 4 * len(audio) * features)


def backward_cost(*_: Any) -> Cost:
    """Nothing: there is no gradient."""
    return Cost(bytes_moved=0)


def _launch(*, has_hidden: bool) -> Launch:
    numbers = ("audio", "padding", "window", "waves", "mel", "means", "deviations", "features")
    hidden = ("hidden_frames", "hidden_bins") if has_hidden else ()
    sizes = ("num_samples", "num_frames", "num_bins", "length", "hop")
    signature = dict.fromkeys(numbers, "*fp32") | dict.fromkeys(hidden, "*i1") | dict.fromkeys(sizes, "i32")
    constants: dict[str, Any] = {
        "HAS_HIDDEN": has_hidden, "QUARTER": 128, "CHUNK": CHUNK, "FRAMES": FRAMES, "BINS": BINS,
    }  # fmt: skip
    if not has_hidden:
        constants |= {"hidden_frames": None, "hidden_bins": None}
    return Launch(
        function=_forward,
        signature=signature | {"pre_emphasis": "fp32", "floor": "fp32"},
        constants=constants,
        num_warps=WARPS,
        divisible=tuple(name for name in signature if name != "num_frames"),
        is_matrix=True,
    )


KERNEL = Kernel(
    name="log_mel",
    reference=reference,
    fused=fused,
    why_not=why_not,
    cases=(
        _case("plain", 2, 131),
        _case("ragged", 2, 50 + 1 + 66 * 20 + 7, quarter=32, bins=19),
        _case("nothing hidden", 2, 60, hides=False),
        _case("all padding", 2, 90, padded=1e9),
        _case("loud", 2, 131, loudness=30_000.0),
        _case("quiet", 2, 131, loudness=1e-3),
        _case("librispeech", 256, 320_000, length=400, hop=160, quarter=128, bins=80, size="large"),
    ),
    forward_cost=forward_cost,
    backward_cost=backward_cost,
    launches=tuple(_launch(has_hidden=has_hidden) for has_hidden in (True, False)),
    dtypes=("float32",),
)
