"""What is wrong with logs, and what scoring did about it: nothing damaged is passed over in silence."""

import enum
from typing import NamedTuple


class Kind(enum.StrEnum):
    """The ways in which logs can fail to be what the rules ask for."""

    TRUNCATED = "truncated file"
    COLUMN = "missing column"
    CELL = "damaged line"
    STEP = "duplicated step"
    TIME = "time going backwards"
    WORKLOAD = "unknown workload"
    FRAMEWORK = "wrong framework"
    EMPTY = "empty folder"
    STRAY = "stray folder"
    TWICE = "trial found twice"
    STUDIES = "number of studies"
    TRIALS = "number of trials"
    TUNING = "rulesets mixed"
    TARGET = "another target"
    JSON = "damaged JSON"
    LEDGER = "ledger does not add up"
    UNREADABLE = "unreadable file"


class Problem(NamedTuple):
    """One row of the table of problems: what is wrong, in which file or folder, and what was done about it."""

    kind: Kind
    file: str
    message: str
    consequence: str
