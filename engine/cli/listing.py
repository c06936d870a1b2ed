"""`timetrial list`: what there is to race, and on what."""

from collections.abc import Iterator

import click

from timetrial.engine.errors import UsageError


@click.command(name="list")
@click.argument("what", type=click.Choice(["workloads", "submissions", "suites"]))
@click.option("--markdown", is_flag=True, help="The workloads as the page WORKLOADS.md.")
def command(what: str, markdown: bool) -> None:
    """Show the workloads, the submissions that come with Timetrial, or the suites.

    \b
    Examples:
      timetrial list workloads
      timetrial list workloads --markdown > WORKLOADS.md
    """
    if markdown:
        if what != "workloads":
            raise UsageError(f"--markdown is for workloads, not for {what}")
        from timetrial.engine.cli.workload_page import page

        click.echo(page(), nl=False)
        return
    entries = {"workloads": _workloads, "submissions": _submissions, "suites": _suites}[what]
    for name, lines in entries():
        click.echo(click.style(name, bold=True))
        for label, text in lines:
            click.echo(f"  {label:10} {text}")


def _workloads() -> Iterator[tuple[str, list[tuple[str, str]]]]:
    from timetrial.engine.cli.workload_page import budget, files, period, split_sizes, targets
    from timetrial.workloads import WORKLOADS

    for facts in WORKLOADS.values():
        lines = [
            ("what", f"{facts.summary}; {facts.num_parameters:,} parameters"),
            ("target", targets(facts)),
            ("budget", f"{budget(facts)}, evaluated every {period(facts)}"),
            ("examples", split_sizes(facts)),
            ("data", facts.dataset.licence),
            ("files", files(facts)),
        ]
        if facts.suite == "pocket":
            batch = f"{facts.batch_ratio} of what the submission asks for on {facts.base}"
            lines.insert(3, ("batch", batch))
        yield facts.name, lines


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
