"""FarmHash's Fingerprint64 of short strings, many at a time.

Click logs name a category by eight hex digits and its column by one or two decimal digits, so only the case of
8 to 16 bytes is here. All arithmetic is modulo 2^64, as that of uint64 arrays is.

Source: FarmHash 1.1 (G. Pike, J. Alakuijala, 2014), function Fingerprint64.
"""

import numpy as np

MULTIPLIER = 0x9AE16A3B2F90404F
SHORTEST, LONGEST = 8, 16  # bytes


def fingerprint64(first: np.ndarray, last: np.ndarray, length: int) -> np.ndarray:
    """Fingerprints, uint64, of strings of `length` bytes each.

    first, last: the first and the last eight bytes of every string as uint64, the earliest byte lowest; in
    strings of fewer than 16 bytes they overlap. ValueError for a length that is not 8 to 16.
    """
    if not SHORTEST <= length <= LONGEST:
        raise ValueError(f"strings of {length} bytes: only {SHORTEST} to {LONGEST} are possible here")
    multiplier = np.uint64(MULTIPLIER + 2 * length)
    shifted = first + np.uint64(MULTIPLIER)
    low = _rotated(last, 37) * multiplier + shifted
    high = (_rotated(shifted, 25) + last) * multiplier
    mixed = _folded((low ^ high) * multiplier)
    fingerprints: np.ndarray = _folded((high ^ mixed) * multiplier) * multiplier
    return fingerprints


def _rotated(words: np.ndarray, bits: int) -> np.ndarray:
    """Each word's bits rotated to the right."""
    rotated: np.ndarray = (words >> np.uint64(bits)) | (words << np.uint64(64 - bits))
    return rotated


def _folded(words: np.ndarray) -> np.ndarray:
    folded: np.ndarray = words ^ (words >> np.uint64(47))
    return folded
