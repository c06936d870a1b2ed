"""Where a trial's wall time went: the ledger's accounts, with the charged one split as the racer saw it."""

from collections.abc import Mapping, Sequence

import pandas as pd

from timetrial.engine.ledger import Account
from timetrial.scoring.readers import TrialLog

# Breakdown entries shown apart; the rest of the submission account is `other`.
SUBMISSION_PARTS = ("data_wait", "update", "drain", "first_call")
OTHER = "other"

PARTS = (
    Account.SETUP.value,
    *SUBMISSION_PARTS,
    OTHER,
    Account.SNAPSHOT.value,
    Account.EVALUATION.value,
    Account.CHECKPOINT.value,
    Account.LOGGING.value,
)


def parts_of(accounts: Mapping[str, int], breakdown: Mapping[str, int]) -> dict[str, int]:
    """Nanoseconds per part; their sum is that of the accounts, exactly.

    The racer's clock makes the split and the referee's the account. Should the split exceed the account by
    the clocks' disagreement, it is scaled down to fit.
    """
    charged = accounts.get(Account.SUBMISSION, 0)
    split = {name: breakdown.get(name, 0) for name in SUBMISSION_PARTS}
    total = sum(split.values())
    if total > charged:
        split = {name: ns * charged // total for name, ns in split.items()}
    named = {part: accounts.get(part, 0) for part in PARTS}
    return named | split | {OTHER: charged - sum(split.values())}


def ledger_frame(logs: Sequence[TrialLog]) -> pd.DataFrame:
    """Integer nanoseconds: a row for every trial that has a ledger (by its position), a column a part."""
    rows = {
        number: parts_of(log.accounts, log.record.breakdown if log.record else {})
        for number, log in enumerate(logs)
        if log.accounts
    }
    return pd.DataFrame.from_dict(rows, orient="index", columns=PARTS, dtype="int64").rename_axis("trial")
