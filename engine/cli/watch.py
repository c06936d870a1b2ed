"""What a race looks like on the terminal while it runs."""

import contextlib
from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from timetrial.engine.clock import seconds
from timetrial.engine.ledger import Account
from timetrial.engine.outcome import Status
from timetrial.engine.records import TrialRecord
from timetrial.engine.study import charged_seconds
from timetrial.engine.trial import TrialPlan

_DOING = {
    Account.SETUP: "setting up",
    Account.SUBMISSION: "training",
    Account.SNAPSHOT: "snapshot",
    Account.EVALUATION: "judging",
    Account.CHECKPOINT: "checkpoint",
    Account.LOGGING: "writing",
}
_COLOUR = {Status.TARGET: "green", Status.BUDGET: "yellow", Status.COMPLETED: "yellow"}


class Watch:
    """The observer of a race: a bar of submission time per trial; without a terminal, a line per evaluation."""

    def __init__(self) -> None:
        self._console = Console(highlight=False, soft_wrap=True)
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=12),
            TextColumn("{task.completed:5.1f}/{task.total:.0f} s"),
            TextColumn("{task.fields[metric]}"),
            TextColumn("[dim]{task.fields[doing]}"),
            console=self._console,
            refresh_per_second=4,
            disable=not self._console.is_terminal,
        )
        self._of: dict[str, TaskID] = {}

    def say(self, line: str) -> None:
        """One line for something that takes a while."""
        self._console.print(f"[dim]{line}[/dim]")

    @contextlib.contextmanager
    def racing(self, plans: Sequence[TrialPlan]) -> Iterator[None]:
        """Show bars while the block runs; first, the most that it can take."""
        budget = sum(plan.budget_sec for plan in plans)
        count = f"{len(plans)} trial{'s' if len(plans) > 1 else ''}"
        first = plans[0]
        self._console.print(
            f"[bold]{first.submission}[/bold] in {first.framework}: {count}, at most {budget:.0f} s of submission "
            "time; setting up and evaluation come on top"
        )
        with self._bars:
            yield

    def account_entered(self, plan: TrialPlan, account: Account) -> None:
        self._bars.update(self._bar(plan), doing=_DOING[account])

    def step_counted(self, plan: TrialPlan, step: int, submission_ns: int) -> None:
        self._bars.update(self._bar(plan), completed=seconds(submission_ns))

    def evaluated(self, plan: TrialPlan, row: dict[str, float]) -> None:
        metric = plan.facts.metric
        value, target = row[f"validation/{metric.name}"], plan.facts.validation_target
        sign = "≥" if metric.better == "higher" else "≤"
        self._bars.update(self._bar(plan), metric=f"{metric.name} {value:.3f} ({sign} {target:.4g})")
        if not self._console.is_terminal:
            self._console.print(
                f"  {self._title(plan)}  {row['accumulated_submission_time']:7.1f} s  step {row['global_step']:5g}  "
                f"{metric.name} {value:.4f} (target {sign} {target:.4g})"
            )

    def ended(self, plan: TrialPlan, status: Status) -> None:
        self._bars.update(self._bar(plan), doing=f"[{_COLOUR.get(status, 'red')}]{status.value}")

    def finish(self, records: Sequence[TrialRecord]) -> None:
        """A line per trial: how it ended and what it cost."""
        for record in records:
            colour = _COLOUR.get(Status(record.status), "red")
            self._console.print(
                f"[{colour}]{record.status:9}[/{colour}] {record.workload} {record.study}.{record.trial}  "
                f"{charged_seconds(record):.1f} s, {record.steps} steps: {record.reason}"
            )
            for flag in record.flags:
                self._console.print(f"          [yellow]flag[/yellow] {flag}")

    def _bar(self, plan: TrialPlan) -> TaskID:
        key = str(plan.directory.path)
        if key not in self._of:
            self._of[key] = self._bars.add_task(self._title(plan), total=plan.budget_sec, metric="", doing="")
        return self._of[key]

    @staticmethod
    def _title(plan: TrialPlan) -> str:
        return f"{plan.facts.name} {plan.study}.{plan.trial}"
