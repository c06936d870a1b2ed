"""Every random number of a race derives from one run seed, by the same rule in both frameworks.

    run seed --study--> study seed --workload, trial--> trial seed --> Streams --step--> StepKeys

The seeds are the leading 63 bits of SHA-256 and the step keys are raw Philox4x64 output, a stream that NumPy
guarantees not to change; so they are equal on every platform, and any trial can be repeated alone.
"""

import hashlib
import json
import operator
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from timetrial.engine.errors import UsageError

Key = np.ndarray  # JAX: uint32[2], a raw threefry key; torch: int32[2], not negative

_BLOCK_STEPS = 1024
_KEYS_PER_STEP = 3


def _digest(*parts: str | int) -> int:
    text = json.dumps(["timetrial", *parts]).encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "big") >> 1


def study_seed(run_seed: int, study: int) -> int:
    """The 63-bit seed of study number `study`; UsageError for a negative number."""
    return _digest("study", _not_negative("run seed", run_seed), _not_negative("study", study))


def trial_seed(study_seed: int, workload: str, trial: int) -> int:
    """The 63-bit seed of one trial of a study; UsageError for a negative number."""
    return _digest("trial", _not_negative("study seed", study_seed), workload, _not_negative("trial", trial))


def _not_negative(name: str, value: int) -> int:
    number = operator.index(value)  # a NumPy integer counts as the integer it is
    if number < 0:
        raise UsageError(f"the {name} is {number}, but it must be 0 or more")
    return number


@dataclass(frozen=True, kw_only=True)
class Streams:
    """The independent 63-bit seeds that one trial uses."""

    data: int  # the order of the training examples
    optimizer_init: int
    model_init: int
    loop: int  # what `StepKeys` starts from


def streams(trial_seed: int) -> Streams:
    """The seeds of one trial, by purpose."""
    seed = _not_negative("trial seed", trial_seed)
    return Streams(
        data=_digest("data", seed),
        optimizer_init=_digest("optimizer_init", seed),
        model_init=_digest("model_init", seed),
        loop=_digest("loop", seed),
    )


def random_key(seed: int, framework: Literal["torch", "jax"]) -> Key:
    """The `rng` argument made of one seed, as `init_model_fn` and `init_optimizer_state` receive it."""
    words = np.random.Philox(key=_not_negative("seed", seed)).random_raw(1)
    row: Key = _as_keys(words, framework)[0]
    return row


class StepKeys:
    """The `rng` arguments of every step: a pure function of (seed, step), at well under 1 us a step.

    Keys are made in blocks of 1,024 consecutive steps; steps taken in order cost one lookup each.
    """

    def __init__(self, seed: int, framework: Literal["torch", "jax"]) -> None:
        self._seed = _not_negative("seed", seed)
        self._framework: Literal["torch", "jax"] = framework
        self._first = 0
        self._rows = self._block(0)

    def __call__(self, step: int) -> tuple[Key, Key, Key]:
        """Keys for `data_selection`, `update_params` and `prepare_for_eval`; shape [2] each."""
        offset = step - self._first
        if not 0 <= offset < _BLOCK_STEPS:
            self._first = step - step % _BLOCK_STEPS
            self._rows = self._block(self._first)
            offset = step - self._first
        return self._rows[offset]

    def _block(self, first_step: int) -> list[tuple[Key, Key, Key]]:
        # The counter's second word numbers the block, so that no block runs into the next one; it starts
        # at 1 because the counter 0 belongs to `random_key`.
        counter = np.array([0, 1 + first_step // _BLOCK_STEPS, 0, 0], dtype=np.uint64)
        words = np.random.Philox(key=self._seed, counter=counter).random_raw(_BLOCK_STEPS * _KEYS_PER_STEP)
        rows = list(_as_keys(words, self._framework))
        return list(zip(rows[0::3], rows[1::3], rows[2::3], strict=True))


def _as_keys(words: np.ndarray, framework: Literal["torch", "jax"]) -> np.ndarray:
    """Rows of two 32-bit words, one row for each 64-bit word."""
    halves = np.stack([words >> np.uint64(32), words & np.uint64(0xFFFFFFFF)], axis=1).astype(np.uint32)
    return halves if framework == "jax" else (halves >> np.uint32(1)).astype(np.int32)


def require_distinct(seeds: Iterable[int]) -> None:
    """UsageError if two trials of a study share a seed: their results would not be independent."""
    seen: set[int] = set()
    for seed in seeds:
        if seed in seen:
            raise UsageError(
                f"two trials of one study have the seed {seed}, so they would be one trial counted twice: "
                "give every trial its own seed"
            )
        seen.add(seed)
