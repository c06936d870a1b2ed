"""`timetrial run`: plan a race from the command line, calibrate, race, and say how each trial ended."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from timetrial.engine.errors import SubmissionError, UsageError
from timetrial.engine.facts import Framework, WorkloadFacts

SELF_TUNING_FACTOR = 1.5  # AlgoPerf v0.6: the self-tuning ruleset has one and a half times the time


@click.command(name="run")
@click.argument("submission")
@click.option(
    "--workload", help="Workloads to race on, separated by commas (see `timetrial list workloads`)."
)
@click.option("--suite", help="All workloads of a suite, such as pocket.")
@click.option("--framework", type=click.Choice(["torch", "jax"]), required=True, help="What to race in.")
@click.option(
    "--ruleset",
    type=click.Choice(["self", "external"]),
    default="self",
    show_default=True,
    help="Who chooses hyperparameters: the submission, or its tuning_search_space.json.",
)
@click.option(
    "--studies", type=click.IntRange(1), default=1, show_default=True, help="Repetitions to take medians of."
)
@click.option(
    "--trials", type=click.IntRange(1), default=1, show_default=True, help="Points a study (external only)."
)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder for the records.")
@click.option(
    "--resume", is_flag=True, help="Keep finished trials; continue broken ones from their checkpoints."
)
@click.option("--max-steps", type=click.IntRange(1), help="End every trial after this many steps.")
@click.option(
    "--in-process", is_flag=True, help="All roles in one process, for a debugger; marked unofficial."
)
@click.option(
    "--seed", type=click.IntRange(0), default=0, show_default=True, help="All randomness derives from it."
)
@click.option(
    "--search",
    type=click.Choice(["quasirandom", "algoperf"]),
    default="quasirandom",
    show_default=True,
    help="How points are drawn from a search space: distinct per study, or AlgoPerf's own set.",
)
@click.option(
    "--compile",
    "compile_policy",
    type=click.Choice(["auto", "on", "off"]),
    default="auto",
    show_default=True,
    help="torch.compile of the model: auto is on with a GPU and off without. JAX always compiles.",
)
@click.option("--data-dir", type=click.Path(path_type=Path), help="Prepared data; default: the user's cache.")
def command(
    submission: str,
    workload: str | None,
    suite: str | None,
    framework: Framework,
    ruleset: str,
    studies: int,
    trials: int,
    out: Path,
    resume: bool,
    max_steps: int | None,
    in_process: bool,
    seed: int,
    search: Any,
    compile_policy: str,
    data_dir: Path | None,
) -> None:
    """Race SUBMISSION: a folder, a Python file, or the name of one that comes with Timetrial.

    Each trial trains until its validation target, its budget or its own end, under a clock that stops while the
    model is evaluated. Records go to OUT/SUBMISSION/study_K/WORKLOAD_FRAMEWORK/trial_N.

    \b
    Examples:
      timetrial run nadamw --suite pocket --framework torch --out runs
      timetrial run ./my_submission --workload imagenet_resnet_pocket --framework jax --out runs
      timetrial run nadamw --suite pocket --framework torch --ruleset external --trials 5 --studies 3 --out runs
    """
    from timetrial.engine import provenance
    from timetrial.engine.cli.places import chosen_workloads, data_folder, home, submission_path
    from timetrial.engine.outcome import Status
    from timetrial.engine.study import require_free

    chosen = chosen_workloads(workload, suite)
    gpus = provenance.gpu_names()
    plans = _plans(
        chosen,
        submission_path(submission),
        framework=framework,
        ruleset=ruleset,
        studies=studies,
        trials=trials,
        out=out,
        max_steps=max_steps,
        in_process=in_process,
        seed=seed,
        search=search,
        compile=framework == "torch"
        and (compile_policy == "on" or (compile_policy == "auto" and bool(gpus))),
        data=data_folder(data_dir),
        caches=home() / "compiled",
        ranks=max(1, len(gpus)) if framework == "torch" and not in_process else 1,
    )
    _refuse_unusable(submission_path(submission), framework)
    require_free(plans, resume=resume)
    records = _race(plans, data_folder(data_dir), in_process=in_process, resume=resume)
    if all(record.status in (Status.CRASHED, Status.HUNG, Status.VOID) for record in records):
        raise UsageError(f"no trial ran to an end of its own; racer.log in each folder under {out} says more")


def _race(plans: list[Any], data: Path, *, in_process: bool, resume: bool) -> list[Any]:
    """Fetch data, calibrate, race all plans, and show it."""
    from timetrial.engine.cli import fetch
    from timetrial.engine.cli.places import kernels_folder
    from timetrial.engine.cli.watch import Watch
    from timetrial.engine.crew import LocalCrew, ProcessCrew
    from timetrial.engine.forecast import Forecast
    from timetrial.engine.referee import Patience
    from timetrial.engine.study import Entry, race, state_of
    from timetrial.kernels.choice import keep_in
    from timetrial.kernels.used import uses
    from timetrial.workloads import WORKLOADS

    for facts in {plan.facts.name: plan.facts for plan in plans}.values():
        fetch.prepare(facts, data)
    watch = Watch()
    patience = Patience()
    keep_in(kernels_folder())  # in this process; a racer and a judge do it themselves
    with LocalCrew(WORKLOADS, uses) if in_process else ProcessCrew() as crew:
        paces = {
            plan.facts.name: _pace(plan, crew, patience, watch)
            for plan in {plan.facts.name: plan for plan in plans}.values()
            if plan.facts.budget_steps is not None
        }
        plans = [_with_budget(plan, paces.get(plan.facts.name)) for plan in plans]
        to_race = [plan for plan in plans if not (resume and state_of(plan) == "finished")]
        with watch.racing(to_race, Forecast(to_race, paces)):
            entry = Entry(engine_folder=Path(__file__).parents[1], resume=resume)
            records = race(plans, crew, watch, patience, entry)
    watch.finish(records)
    return records


def _refuse_unusable(path: Path, framework: Framework) -> None:
    """SubmissionError for what makes a race pointless and can be seen in the source alone."""
    from timetrial.engine.check import Level, check

    for finding in check(path, framework, workload_names=()):
        if finding.level is Level.ERROR:
            line = "" if finding.line is None else f", line {finding.line}"
            raise SubmissionError(
                f"{path}{line}: {finding.subject}: {finding.text} (`timetrial check` says everything at once)"
            )


def _plans(
    chosen: list[WorkloadFacts],
    path: Path,
    *,
    framework: Framework,
    ruleset: str,
    studies: int,
    trials: int,
    out: Path,
    seed: int,
    search: Any,
    **common: Any,
) -> list[Any]:
    from timetrial.engine.records import TrialDirectory
    from timetrial.engine.seeds import require_distinct, study_seed, trial_seed
    from timetrial.engine.submission import find, name_of
    from timetrial.engine.trial import TrialPlan

    file = find(path, framework)
    name = name_of(file)
    points = _points(file, ruleset, studies, trials, search, seed)
    plans = []
    for study in range(studies):
        of_study = study_seed(seed, study)
        seeds = {(w.name, t): trial_seed(of_study, w.name, t) for w in chosen for t in range(1, trials + 1)}
        require_distinct(seeds.values())
        for facts in chosen:
            for trial in range(1, trials + 1):
                plans.append(
                    TrialPlan(
                        facts=facts,
                        framework=framework,
                        submission=name,
                        submission_path=file,
                        ruleset=ruleset,
                        study=study,
                        trial=trial,
                        seed=seeds[facts.name, trial],
                        hyperparameters=points[study][trial - 1],
                        budget_sec=facts.max_allowed_runtime_sec or float("inf"),
                        eval_period_sec=facts.eval_period_time_sec or float("inf"),
                        directory=TrialDirectory.below(
                            out.resolve(),
                            submission=name,
                            study=study,
                            workload=facts.name,
                            framework=framework,
                            trial=trial,
                        ),
                        **common,
                    )
                )
    return plans


def _points(file: Path, ruleset: str, studies: int, trials: int, search: Any, seed: int) -> list[list[Any]]:
    """Hyperparameters by study and trial: None where the submission tunes itself."""
    from timetrial.engine.search import load_space, trial_points
    from timetrial.engine.submission import SEARCH_SPACE_FILE

    if ruleset == "self":
        if trials != 1:
            raise UsageError(f"--trials {trials} needs --ruleset external: a self-tuning study is one trial")
        return [[None]] * studies
    space = file.parent / SEARCH_SPACE_FILE
    if not space.is_file():
        raise UsageError(f"--ruleset external needs {space}, which does not exist")
    return [
        list(study)
        for study in trial_points(load_space(space), search=search, studies=studies, trials=trials, seed=seed)
    ]


def _with_budget(plan: Any, pace: Any) -> Any:
    """The plan with its time limits in seconds of this machine, whose pace a pocket workload comes with."""
    facts = plan.facts
    if pace is None:
        factor = SELF_TUNING_FACTOR if plan.ruleset == "self" else 1.0
        return replace(plan, budget_sec=plan.budget_sec * factor)
    return replace(
        plan,
        budget_sec=pace.budget_sec(facts.budget_steps),
        eval_period_sec=pace.step_sec * facts.eval_period_steps,
    )


def _pace(plan: Any, crew: Any, patience: Any, watch: Any) -> Any:
    """The baseline's pace on this machine, measured once and kept."""
    from timetrial.engine import provenance
    from timetrial.engine.calibration import PaceCache, measure
    from timetrial.engine.cli.places import home, kernels_folder
    from timetrial.engine.records import TrialDirectory
    from timetrial.engine.submission import find
    from timetrial.submissions import REFERENCE, SUBMISSIONS

    cache = PaceCache(home() / "calibration.json")
    baseline = find(SUBMISSIONS[REFERENCE], plan.framework)
    hardware = provenance.hardware()
    key = "|".join(
        str(part)
        for part in (
            plan.facts.name,
            plan.framework,
            plan.compile,
            plan.ranks,
            hardware["cpu"],
            hardware["cpu_count"],
            hardware["gpus"],
            provenance.framework_version(plan.framework),
            # All that the baseline is made of, and how its kernels are launched.
            provenance.source_hash([baseline.parents[1], kernels_folder()]),
        )
    )
    pace = cache.get(key)
    if pace is None:
        watch.say(f"calibrating {plan.facts.name} in {plan.framework} on this machine")
        directory = TrialDirectory(path=crew.scratch / "calibrated")
        of_baseline = replace(plan, submission_path=baseline, hyperparameters=None, directory=directory)
        pace = measure(of_baseline, crew, patience)
        cache.put(key, pace)
    return pace
