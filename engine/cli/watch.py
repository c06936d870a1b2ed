"""What a race looks like on the terminal while it runs."""

import contextlib
from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from timetrial.engine.clock import seconds
from timetrial.engine.forecast import Forecast, in_words
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
    """The observer of a race: a bar of submission time per trial and one of wall time for all; without a terminal, a
    line per evaluation."""

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
        self._forecast: Forecast | None = None
        self._race = TaskID(0)  # the bar of all trials together

    def say(self, line: str) -> None:
        """One line for something that takes a while."""
        self._console.print(f"[dim]{line}[/dim]")

    @contextlib.contextmanager
    def racing(self, plans: Sequence[TrialPlan], forecast: Forecast) -> Iterator[None]:
        """Show bars while the block runs; first, the most that the trials of `plans` can take."""
        if not plans:
            yield
            return
        self._forecast = forecast
        count = f"{len(plans)} trial{'s' if len(plans) > 1 else ''}"
        submission = in_words(forecast.submission_sec)
        self._console.print(
            f"[bold]{plans[0].submission}[/bold] in {plans[0].framework}: {count}, at most about "
            + (
                f"{in_words(forecast.most_left_sec())}, of which {submission} are submission time and the others "
                "setting up and evaluation"
                if forecast.is_known
                else f"{submission} of submission time; setting up and evaluation come on top"
            )
        )
        self._race = self._bars.add_task(
            f"[bold]{count}", total=forecast.most_left_sec(), metric="", doing=""
        )
        with self._bars:
            yield

    def account_entered(self, plan: TrialPlan, account: Account) -> None:
        self._bars.update(self._bar(plan), doing=_DOING[account])

    def step_counted(self, plan: TrialPlan, step: int, submission_ns: int) -> None:
        self._bars.update(self._bar(plan), completed=seconds(submission_ns))
        if self._forecast is not None:
            elapsed, most_left = self._forecast.elapsed_sec, self._forecast.most_left_sec()
            left = f"about {in_words(self._forecast.left_sec())} to go"
            self._bars.update(self._race, completed=elapsed, total=elapsed + most_left, metric=left)

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
        forecast = self._forecast
        if forecast is None:
            return
        forecast.ended(plan)
        if forecast.num_left and not self._console.is_terminal:
            self._console.print(
                f"  {in_words(forecast.elapsed_sec)} raced; {forecast.num_left} to go: about "
                f"{in_words(forecast.left_sec())}, at most {in_words(forecast.most_left_sec())}"
            )

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
