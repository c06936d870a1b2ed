"""The submissions that come with Timetrial, by the name under which the command line finds them.

To add one: a folder with `submission_torch.py`, `submission_jax.py` or both, and for external tuning a
`tuning_search_space.json`. Each also trains without hyperparameters, by the values in its `self_tuning.py`.
"""

from pathlib import Path

_FOLDER = Path(__file__).parent

SUBMISSIONS: dict[str, Path] = {
    "nadamw": _FOLDER / "nadamw",  # AlgoPerf's baseline
    "adamw": _FOLDER / "adamw",
    "nesterov": _FOLDER / "nesterov",
}

# What paces a machine: the baseline whose steps pocket budgets are stated in.
REFERENCE = "nadamw"
