"""The facts of all workloads in words, and the page of them that the documentation holds."""

from collections.abc import Iterator

from timetrial.engine.facts import WorkloadFacts
from timetrial.workloads import SUITES, WORKLOADS

_INTRODUCTION = """\
# Workloads

Made by `timetrial list workloads --markdown`; a test fails where this page and the code differ. Each workload's own
page is the file of its name in `workloads/`: data, model, loss, metric and where it departs from its source.
"""

_SUITE_TEXT = {
    "algoperf": (
        "AlgoPerf's workloads at full size, on the real datasets in their owners' formats "
        "(`timetrial data prepare NAME --from DIR`)."
    ),
    "variants": "AlgoPerf's variants: one change each to the model of a base workload, with targets of their own.",
    "development": "AlgoPerf's two small workloads for trying things out; they are not scored.",
    "pocket": (
        "A twin of each base workload that one laptop core trains in minutes, on data that a package registry has. "
        "Budgets are steps of the NAdamW baseline, turned into seconds on the machine at hand; the batch is the "
        "given share of what a submission asks for on the base workload."
    ),
    "test": "What the engine's own tests train.",
}


def targets(facts: WorkloadFacts) -> str:
    """For example "accuracy ≥ 0.77 (validation), 0.65 (test)"."""
    sign = "≥" if facts.metric.better == "higher" else "≤"
    test = "" if facts.test_target is None else f", {facts.test_target:g} (test)"
    return f"{facts.metric.name} {sign} {facts.validation_target:g} (validation){test}"


def budget(facts: WorkloadFacts) -> str:
    """Seconds, or steps of the baseline."""
    if facts.budget_steps is not None:
        return f"{facts.budget_steps:,} steps"
    return f"{facts.max_allowed_runtime_sec:,.0f} s"


def period(facts: WorkloadFacts) -> str:
    """What lies between two evaluations."""
    if facts.eval_period_steps is not None:
        return f"{facts.eval_period_steps:,} steps"
    return f"{facts.eval_period_time_sec:,.0f} s"


def split_sizes(facts: WorkloadFacts) -> str:
    """Examples of each split."""
    test = "" if facts.num_test_examples is None else f", {facts.num_test_examples:,} test"
    return f"{facts.num_train_examples:,} train, {facts.num_validation_examples:,} validation{test}"


def files(facts: WorkloadFacts) -> str:
    """Where the data comes from."""
    sources = []
    if facts.dataset.package is not None:
        sources.append(facts.dataset.package)
    if facts.dataset.owner_files is not None:
        sources.append(f"--from a folder with {facts.dataset.owner_files}")
    return "; or ".join(sources)


def page() -> str:
    """The page, as Markdown."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield _INTRODUCTION
    for suite, names in SUITES.items():
        chosen = [WORKLOADS[name] for name in names]
        yield f"## {suite}\n\n{_SUITE_TEXT[suite]}\n"
        batch = chosen[0].suite == "pocket"
        head = ["workload", "data and model", "parameters", "target", "budget", "period", "step hint"]
        head += ["batch"] if batch else []
        yield _row(head)
        yield _row(["---"] * len(head))
        for facts in chosen:
            cells = [
                f"`{facts.name}`",
                facts.summary,
                f"{facts.num_parameters:,}",
                targets(facts),
                budget(facts),
                period(facts),
                f"{facts.step_hint:,}",
            ]
            yield _row([*cells, str(facts.batch_ratio)] if batch else cells)
        yield ""
    yield "## Data\n"
    yield _row(["dataset", "workloads", "licence", "where it comes from"])
    yield _row(["---"] * 4)
    users: dict[str, list[WorkloadFacts]] = {}
    for facts in WORKLOADS.values():
        users.setdefault(facts.dataset.name, []).append(facts)
    for name, of_it in users.items():
        named = ", ".join(f"`{facts.name}`" for facts in of_it)
        yield _row([name, named, of_it[0].dataset.licence, files(of_it[0])])
    yield ""
    yield _row(["workload", "evaluated training examples", "train", "validation", "test", "evaluation batch"])
    yield _row(["---"] * 6)
    for facts in WORKLOADS.values():
        test = "" if facts.num_test_examples is None else f"{facts.num_test_examples:,}"
        sizes = (facts.num_eval_train_examples, facts.num_train_examples, facts.num_validation_examples)
        yield _row([f"`{facts.name}`", *(f"{n:,}" for n in sizes), test, f"{facts.eval_batch_size:,}"])


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"
