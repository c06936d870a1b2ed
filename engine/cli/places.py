"""Where things lie on this machine, and how names on the command line become things."""

import os
from pathlib import Path

from timetrial.engine.errors import UsageError
from timetrial.engine.facts import WorkloadFacts
from timetrial.submissions import SUBMISSIONS
from timetrial.workloads import SUITES, WORKLOADS


def home() -> Path:
    """Data, calibrations, compiled judges and tuned kernels: `$TIMETRIAL_HOME`, else a cache folder of the user."""
    chosen = os.environ.get("TIMETRIAL_HOME")
    if chosen:
        return Path(chosen).expanduser().resolve()
    caches = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(caches).resolve() / "timetrial"


def kernels_folder() -> Path:
    """What `timetrial tune` found out of this machine's GPUs."""
    return home() / "kernels"


def data_folder(given: Path | None) -> Path:
    """Where prepared data lies."""
    return (home() / "data" if given is None else given).resolve()


def submission_path(given: str) -> Path:
    """A path as it is, or the folder of a submission that we ship."""
    path = Path(given)
    if path.exists():
        return path.resolve()
    if given in SUBMISSIONS:
        return SUBMISSIONS[given]
    raise UsageError(
        f"{given!r} is neither a path nor a submission that comes with Timetrial; those are {', '.join(SUBMISSIONS)}"
    )


def chosen_workloads(names: str | None, suite: str | None) -> list[WorkloadFacts]:
    """The workloads of a comma-separated list or of a suite, in order."""
    if (names is None) == (suite is None):
        raise UsageError("give either --workload NAME[,NAME] or --suite NAME")
    if suite is not None:
        if suite not in SUITES:
            raise UsageError(f"there is no suite {suite!r}; there are {', '.join(SUITES)}")
        return [WORKLOADS[name] for name in SUITES[suite]]
    chosen = []
    for name in (names or "").split(","):
        if name.strip() not in WORKLOADS:
            raise UsageError(f"there is no workload {name.strip()!r}; there are {', '.join(WORKLOADS)}")
        chosen.append(WORKLOADS[name.strip()])
    return chosen
