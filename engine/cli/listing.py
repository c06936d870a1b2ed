"""`timetrial list`: what there is to race, and on what."""

from collections.abc import Iterator

import click


@click.command(name="list")
@click.argument("what", type=click.Choice(["workloads", "submissions", "suites"]))
def command(what: str) -> None:
    """Show the workloads, the submissions that come with Timetrial, or the suites.

    \b
    Example:
      timetrial list workloads
    """
    entries = {"workloads": _workloads, "submissions": _submissions, "suites": _suites}[what]
    for name, lines in entries():
        click.echo(click.style(name, bold=True))
        for label, text in lines:
            click.echo(f"  {label:10} {text}")


def _workloads() -> Iterator[tuple[str, list[tuple[str, str]]]]:
    from timetrial.workloads import WORKLOADS

    for facts in WORKLOADS.values():
        sign = "≥" if facts.metric.better == "higher" else "≤"
        in_steps = facts.budget_steps is not None
        budget = (
            f"{facts.budget_steps} steps of the baseline"
            if in_steps
            else f"{facts.max_allowed_runtime_sec:g} s"
        )
        every = f"{facts.eval_period_steps} steps" if in_steps else f"{facts.eval_period_time_sec:g} s"
        yield (
            facts.name,
            [
                ("what", facts.summary),
                ("target", f"validation {facts.metric.name} {sign} {facts.validation_target:g}"),
                ("budget", f"{budget}, evaluated every {every}"),
                ("batch", f"{facts.batch_ratio} of what the submission asks for on {facts.base}"),
                ("data", facts.licence),
            ],
        )


def _submissions() -> Iterator[tuple[str, list[tuple[str, str]]]]:
    from timetrial.engine.submission import SEARCH_SPACE_FILE
    from timetrial.submissions import SUBMISSIONS

    for name, folder in SUBMISSIONS.items():
        frameworks = [f for f in ("torch", "jax") if (folder / f"submission_{f}.py").is_file()]
        rulesets = "self, external" if (folder / SEARCH_SPACE_FILE).is_file() else "self"
        yield name, [("frameworks", ", ".join(frameworks)), ("rulesets", rulesets), ("folder", str(folder))]


def _suites() -> Iterator[tuple[str, list[tuple[str, str]]]]:
    from timetrial.workloads import SUITES

    for name, workloads in SUITES.items():
        yield name, [("workloads", ", ".join(workloads))]
