"""`timetrial list`: what there is to race, and on what."""

import click


@click.command(name="list")
@click.argument("what", type=click.Choice(["workloads", "submissions", "suites"]))
def command(what: str) -> None:
    """Show the workloads, the submissions that come with Timetrial, or the suites.

    \b
    Example:
      timetrial list workloads
    """
    from rich.console import Console
    from rich.table import Table

    console = Console()
    table = Table(box=None, header_style="bold", pad_edge=False)
    if what == "workloads":
        _fill_workloads(table)
    elif what == "submissions":
        _fill_submissions(table)
    else:
        _fill_suites(table)
    console.print(table)


def _fill_workloads(table: "object") -> None:
    from rich.table import Table

    from timetrial.workloads import WORKLOADS

    assert isinstance(table, Table)
    for name in ("workload", "what", "target", "budget", "evaluated every", "batch", "data"):
        table.add_column(name)
    for facts in WORKLOADS.values():
        sign = "≥" if facts.metric.better == "higher" else "≤"
        in_steps = facts.budget_steps is not None
        table.add_row(
            facts.name,
            facts.summary,
            f"{facts.metric.name} {sign} {facts.validation_target:g}",
            f"{facts.budget_steps} steps" if in_steps else f"{facts.max_allowed_runtime_sec:g} s",
            f"{facts.eval_period_steps} steps" if in_steps else f"{facts.eval_period_time_sec:g} s",
            f"{facts.batch_ratio} of {facts.base}" if facts.batch_ratio != 1 else facts.base,
            facts.licence,
        )


def _fill_submissions(table: "object") -> None:
    from rich.table import Table

    from timetrial.submissions import SUBMISSIONS

    assert isinstance(table, Table)
    for name in ("submission", "frameworks", "search space", "folder"):
        table.add_column(name)
    for name, folder in SUBMISSIONS.items():
        frameworks = [f for f in ("torch", "jax") if (folder / f"submission_{f}.py").is_file()]
        has_space = (folder / "tuning_search_space.json").is_file()
        table.add_row(name, ", ".join(frameworks), "yes" if has_space else "no", str(folder))


def _fill_suites(table: "object") -> None:
    from rich.table import Table

    from timetrial.workloads import SUITES

    assert isinstance(table, Table)
    table.add_column("suite")
    table.add_column("workloads")
    for name, workloads in SUITES.items():
        table.add_row(name, ", ".join(workloads))
