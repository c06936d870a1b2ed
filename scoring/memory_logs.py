"""Whether the text logs beside a trial tell of memory that ran out."""

import glob
import os
import re

_TAIL = 256 * 1024  # a crash is told at the end

# CUDA's, XLA's, the C++ library's and the kernel's wording.
_OUT_OF_MEMORY = re.compile(
    rb"out of memory|OutOfMemory|RESOURCE_EXHAUSTED|std::bad_alloc|MemoryError|oom-kill", re.IGNORECASE
)
_TRIAL_BEGINS = re.compile(rb"--- Tuning run (\d+)/\d+ ---")


def ran_out_of_memory(trial: str) -> bool:
    """Look at the ends of the logs in the trial's folder (ours) and in its workload's folder (AlgoPerf's).

    A log of AlgoPerf's covers several trials; where it says which trial begins, only that one's part counts.
    """
    number = int(trial.rpartition("_")[2])
    own = (_OUT_OF_MEMORY.search(_tail(path)) for path in glob.glob(f"{glob.escape(trial)}/*.log"))
    if any(own):
        return True
    folder = os.path.dirname(trial)
    shared = glob.glob(f"{glob.escape(folder)}/{glob.escape(os.path.basename(folder))}_*.log")
    return any(_OUT_OF_MEMORY.search(_part(_tail(path), number)) for path in shared)


def _tail(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            file.seek(max(0, os.path.getsize(path) - _TAIL))
            return file.read()
    except OSError:
        return b""  # a log that cannot be read tells nothing; the trial's own files decide


def _part(text: bytes, trial: int) -> bytes:
    """What a log says of one trial; all of it where it does not tell trials apart."""
    pieces = _TRIAL_BEGINS.split(text)  # before, number, text, number, text, ...
    if len(pieces) == 1:
        return text
    return b"".join(
        piece for number, piece in zip(pieces[1::2], pieces[2::2], strict=True) if int(number) == trial
    )
