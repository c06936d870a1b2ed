"""Tuning search spaces, and the points that the trials of a race take from them.

`quasirandom` is a seeded, scrambled Halton sequence whose points are all distinct and shared out over the
studies. `algoperf` is AlgoPerf's own set: the same points for every study and every space of as many
dimensions. Its prime bases (up to 997) exceed any number of trials, so that set is spread no more evenly than
random points are.
"""

import collections
import json
import keyword
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from timetrial.engine.errors import SubmissionError, UsageError
from timetrial.engine.seeds import study_seed

Point = dict[str, Any]  # hyperparameter name -> number, text, truth value or null
Search = Literal["algoperf", "quasirandom"]

_ALGOPERF_SKIPPED = 100  # the first point used has index 101


@dataclass(frozen=True, kw_only=True)
class Discrete:
    """One of the listed values."""

    values: tuple[Any, ...]

    def at(self, u: float) -> Any:
        """The value at the coordinate `u` in [0, 1)."""
        return self.values[math.floor(u * len(self.values))]

    @property
    def size(self) -> float:
        """The number of different values."""
        return len({json.dumps(value) for value in self.values})


@dataclass(frozen=True, kw_only=True)
class Continuous:
    """A float from an interval, uniform in itself or in its logarithm."""

    low: float
    high: float
    log: bool

    def at(self, u: float) -> float:
        """The value at the coordinate `u` in [0, 1)."""
        if self.log:
            return self.low * math.exp(u * math.log(self.high / self.low))
        return u * (self.high - self.low) + self.low

    @property
    def size(self) -> float:
        """The number of different values."""
        return 1 if self.low == self.high else math.inf


@dataclass(frozen=True, kw_only=True)
class ProductSpace:
    """Every hyperparameter varies by itself."""

    dimensions: Mapping[str, Discrete | Continuous]

    def at(self, coordinates: Sequence[float]) -> Point:
        """The point at these coordinates, one for each dimension."""
        pairs = zip(self.dimensions.items(), coordinates, strict=True)
        return {name: dimension.at(float(u)) for (name, dimension), u in pairs}

    @property
    def size(self) -> float:
        """The number of different points."""
        return math.prod(dimension.size for dimension in self.dimensions.values())


@dataclass(frozen=True, kw_only=True)
class PointList:
    """Points in the order in which trials take them."""

    points: tuple[Point, ...]


SearchSpace = ProductSpace | PointList


def load_space(path: Path) -> SearchSpace:
    """Read a `tuning_search_space.json`; SubmissionError for what AlgoPerf's format does not have."""
    try:
        content = json.loads(path.read_bytes(), object_pairs_hook=_without_duplicates)
    except FileNotFoundError as error:
        raise SubmissionError(f"{path} does not exist: external tuning needs a search space") from error
    except ValueError as error:
        raise SubmissionError(f"{path} is not valid JSON: {error}") from error
    if isinstance(content, list):
        return PointList(points=_parse_points(path, content))
    if isinstance(content, dict) and content:
        return ProductSpace(dimensions={name: _parse(path, name, spec) for name, spec in content.items()})
    raise SubmissionError(f"{path} must be an object of hyperparameters or a list of points, and not empty")


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    counts = collections.Counter(name for name, _ in pairs)
    if repeated := [name for name, count in counts.items() if count > 1]:
        raise ValueError(f"the key {repeated[0]!r} occurs twice in one object")
    return dict(pairs)


def _check_name(path: Path, name: str) -> None:
    if not name.isidentifier() or keyword.iskeyword(name) or name.startswith("_"):
        raise SubmissionError(
            f"{path}: {name!r} cannot be a hyperparameter; a name is a Python identifier that does not start "
            "with an underscore"
        )


def _is_scalar(value: Any) -> bool:
    return value is None or isinstance(value, bool | int | float | str)


def _parse_points(path: Path, content: list[Any]) -> tuple[Point, ...]:
    if not content or not all(isinstance(point, dict) and point for point in content):
        raise SubmissionError(f"{path}: a list of points must hold objects with at least one hyperparameter")
    names = content[0].keys()
    for name in names:
        _check_name(path, name)
    for number, point in enumerate(content, start=1):
        if difference := names ^ point.keys():
            raise SubmissionError(
                f"{path}: point {number} and point 1 differ in {', '.join(sorted(difference))}"
            )
        for name, value in point.items():
            if not _is_scalar(value):
                raise SubmissionError(
                    f"{path}: {name} of point {number} must be a number, text, true or null"
                )
    return tuple({name: point[name] for name in names} for point in content)


def _parse(path: Path, name: str, spec: Any) -> Discrete | Continuous:
    _check_name(path, name)
    if not isinstance(spec, dict):
        raise SubmissionError(
            f"{path}: {name} must be an object with feasible_points or min, max and scaling"
        )
    if "feasible_points" in spec:
        values = spec["feasible_points"]
        if not isinstance(values, list) or not values or not all(map(_is_scalar, values)):
            raise SubmissionError(f"{path}: feasible_points of {name} must be a list of values, even for one")
        return Discrete(values=tuple(values))
    if missing := [key for key in ("min", "max", "scaling") if key not in spec]:
        raise SubmissionError(
            f"{path}: {name} has no {missing[0]}; it needs feasible_points or min, max, scaling"
        )
    low, high, scaling = spec["min"], spec["max"], spec["scaling"]
    for bound in (low, high):
        if isinstance(bound, bool) or not isinstance(bound, int | float) or not math.isfinite(bound):
            raise SubmissionError(f"{path}: min and max of {name} must be finite numbers, not {bound!r}")
    if scaling not in ("log", "linear"):
        raise SubmissionError(f"{path}: scaling of {name} is {scaling!r}; it must be 'log' or 'linear'")
    if low > high or (scaling == "log" and low <= 0):
        rule = "0 < min <= max" if scaling == "log" else "min <= max"
        raise SubmissionError(f"{path}: {name} goes from {low} to {high}, but {scaling} scaling needs {rule}")
    return Continuous(low=float(low), high=float(high), log=scaling == "log")


def trial_points(
    space: SearchSpace, *, search: Search, studies: int, trials: int, seed: int
) -> list[list[Point]]:
    """The points of every study, in the order of its trials; a pure function of its arguments.

    A list gives every study its first points, in its order. From a product, `quasirandom` gives each study
    points of its own, and `algoperf` gives each the same points in an order made from its study seed.
    SubmissionError if the space has too few points.
    """
    if studies < 1 or trials < 1:
        raise UsageError(f"a race has at least one study and one trial, not {studies} and {trials}")
    if isinstance(space, PointList):
        if trials > len(space.points):
            raise SubmissionError(
                f"the search space lists {len(space.points)} points, too few for {trials} trials a study: "
                f"ask for at most {len(space.points)}"
            )
        return [list(space.points[:trials]) for _ in range(studies)]
    if search == "quasirandom":
        points = quasi_random_points(space, studies * trials, seed)
        return [points[i * trials : (i + 1) * trials] for i in range(studies)]
    points = algoperf_points(space, trials)
    orders = (np.random.default_rng(study_seed(seed, study)).permutation(trials) for study in range(studies))
    return [[points[i] for i in order] for order in orders]


def as_hyperparameters(point: Mapping[str, Any] | None) -> Any:
    """The named tuple `Hyperparameters` that a submission receives; None (self-tuning) stays None."""
    return None if point is None else collections.namedtuple("Hyperparameters", point)(**point)


def quasi_random_points(space: ProductSpace, n: int, seed: int) -> list[Point]:
    """The first `n` distinct points of a scrambled Halton sequence (Owen, arXiv 1706.02808).

    Dimensions with a single value take no coordinate. SubmissionError if the space has fewer than `n` points.
    """
    if space.size < n:
        raise SubmissionError(
            f"the search space has {space.size:g} different points, too few for {n} trials: widen it or ask "
            "for fewer studies or trials"
        )
    from scipy.stats import qmc  # takes a second to import, which only this search needs

    varying = [dimension.size > 1 for dimension in space.dimensions.values()]
    sequence = qmc.Halton(max(sum(varying), 1), seed=np.random.default_rng(seed))
    distinct: dict[str, Point] = {}
    while len(distinct) < n:
        rows = np.zeros((n, len(varying)))
        rows[:, varying] = sequence.random(n)[:, : sum(varying)]
        for row in rows:
            point = space.at(row.tolist())
            distinct.setdefault(json.dumps(point), point)
    return list(distinct.values())[:n]


def algoperf_points(space: ProductSpace, n: int) -> list[Point]:
    """The `n` points AlgoPerf's runner tries, in the order before its (unseeded) shuffle.

    One dimension for each hyperparameter, single-valued ones included. Per dimension a prime base p, its
    digits permuted and its values shifted by what RandomState(p) draws (Cranley and Patterson's rotation).
    """
    columns = [_algoperf_coordinates(prime, n) for prime in _algoperf_bases(len(space.dimensions))]
    return [space.at(row) for row in zip(*columns, strict=True)]


def _algoperf_bases(count: int) -> list[int]:
    """The primes just before the largest below 1000, or below the first thousand that has enough of them."""
    limit = 1000
    while len(primes := list(_odd_primes(limit))) < count + 1:
        limit += 1000
    return primes[-count - 1 : -1]


def _odd_primes(limit: int) -> Iterator[int]:
    is_prime = np.ones(limit, dtype=bool)
    for factor in range(3, math.isqrt(limit) + 1, 2):
        is_prime[factor * factor :: factor] = False
    return (odd for odd in range(3, limit, 2) if is_prime[odd])


def _algoperf_coordinates(prime: int, n: int) -> list[float]:
    generator = np.random.RandomState(prime)
    digits = list(range(1, prime))
    generator.shuffle(digits)
    digits.insert(0, 0)
    shift = generator.random_sample()
    first = _ALGOPERF_SKIPPED + 1
    return [(_radical_inverse(i, prime, digits) + shift) % 1.0 for i in range(first, first + n)]


def _radical_inverse(index: int, base: int, permuted_digits: Sequence[int]) -> float:
    value, scale = 0.0, 1.0
    while index:
        index, digit = divmod(index, base)
        scale /= base
        value += permuted_digits[digit] * scale
    return value
