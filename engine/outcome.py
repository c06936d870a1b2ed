"""How a trial can end, and the sentence shown for each end."""

import enum


class Status(enum.StrEnum):
    """The end of a trial. `BROKEN` ends are the ones that `--resume` takes up again."""

    TARGET = "target"
    BUDGET = "budget"
    COMPLETED = "completed"
    DIVERGED = "diverged"
    CRASHED = "crashed"
    HUNG = "hung"
    VOID = "void"


SENTENCE = {
    Status.TARGET: "the validation target was reached",
    Status.BUDGET: "the time budget was used up before the validation target was reached",
    Status.COMPLETED: "training ended, by itself or by --max-steps, before the validation target was reached",
    Status.DIVERGED: "a parameter became NaN or infinite",
    Status.CRASHED: "a process of the trial died",
    Status.HUNG: "a step did not end within its time limit",
    Status.VOID: "the rules were broken, so nothing measured after that counts",
}

BROKEN = frozenset({Status.CRASHED, Status.HUNG})
