"""Every error that Timetrial raises on purpose.

Error
├── UsageError        a command or an argument that cannot be carried out
├── SubmissionError   a submission that breaks the API or the rules
├── DataError         a dataset that is absent, damaged or of another version
├── RecordError       a log or checkpoint that cannot be read back
└── SnapshotError     tensors that are not those of the workload's model; the trial is void

A message is one sentence: what is wrong, where, and what would be right. The command line prints it
and exits with code 2.
"""


class Error(Exception):
    """Base of all errors below; its text is meant for the person at the terminal."""


class UsageError(Error):
    """A command or an argument that cannot be carried out as given."""


class SubmissionError(Error):
    """A submission that breaks the submission API or the rules of the benchmark."""


class DataError(Error):
    """A dataset that is absent, damaged or of another version than the workload expects."""


class RecordError(Error):
    """A log, ledger or checkpoint that cannot be read back."""


class SnapshotError(Error):
    """Snapshot tensors whose names, shapes, dtypes or exact types are not those of the workload's model."""
