"""Made click logs in the owner's format, and their features computed plainly, a field at a time."""

import gzip
import math

import numpy as np

from timetrial.data_loading.criteo_rows import VOCABULARIES

WORD = (1 << 64) - 1


def fingerprint(text: bytes) -> int:
    """Fingerprint64 of 8 to 16 bytes in Python's integers."""

    def rotated(x, bits):
        return (x >> bits | x << 64 - bits) & WORD

    multiplier = 0x9AE16A3B2F90404F + 2 * len(text)
    a = (int.from_bytes(text[:8], "little") + 0x9AE16A3B2F90404F) & WORD
    b = int.from_bytes(text[-8:], "little")
    c = (rotated(b, 37) * multiplier + a) & WORD
    d = (rotated(a, 25) + b) * multiplier & WORD
    x = (c ^ d) * multiplier & WORD
    y = ((x ^ x >> 47) ^ d) * multiplier & WORD
    return (y ^ y >> 47) * multiplier & WORD


def features(line: str) -> tuple[list[float], int]:
    """39 inputs and the label of one row."""
    label, *fields = line.split("\t")
    counts = [max(int(text or "0"), 0) for text in fields[:13]]
    inputs = [math.log(float(np.float32(count)) + 1) for count in counts]
    for column, text in enumerate(fields[13:]):
        bucket = fingerprint(f"{text or '00000000'}{column}".encode()) % VOCABULARIES[column]
        inputs.append(int(np.float32(bucket)) % 2**22)
    return inputs, int(label)


def made_lines(count: int, seed: int) -> list[str]:
    """Rows with missing, negative and large fields; the first integer is the row's own number."""
    generator = np.random.default_rng(seed)
    lines = []
    for number in range(count):
        integers = [str(x) for x in (generator.lognormal(3, 4, 13) - 3).astype(int)]
        categories = [f"{x:08x}" for x in generator.integers(0, 1 << 32, 26)]
        fields = [
            "" if missing else text
            for text, missing in zip(integers + categories, generator.random(39) < 0.2, strict=True)
        ]
        lines.append("\t".join([str(generator.integers(2)), str(number), *fields[1:]]))
    return lines


def text_of(lines: list[str]) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode()


def write_day(folder, day: int, lines: list[str], form: str, rows_per_file: int = 10) -> None:
    """One day as the owner ships it (`gz`), unpacked (`plain`) or `cut` as the reference wants it."""
    folder.mkdir(exist_ok=True)
    if form == "gz":
        (folder / f"day_{day}.gz").write_bytes(gzip.compress(text_of(lines)))
    elif form == "plain":
        (folder / f"day_{day}").write_bytes(text_of(lines))
    else:
        for i in range(0, len(lines), rows_per_file):
            path = folder / f"day_{day}_{i // rows_per_file:02}"
            path.write_bytes(text_of(lines[i : i + rows_per_file]))
