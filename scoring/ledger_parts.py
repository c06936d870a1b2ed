"""Where a trial's wall time went: the ledger's accounts, with the charged one split as the racer saw it."""

from collections.abc import Mapping

from timetrial.engine.ledger import Account

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
