"""The page: its sections in order, a list of contents, and what the words mean."""

from collections.abc import Callable
from importlib import resources
from string import Template
from typing import NamedTuple

from timetrial.scoring.analysis import Analysis
from timetrial.scoring.report.markup import Html, counted, definitions, folded, html, join
from timetrial.scoring.report.section_curves import curves
from timetrial.scoring.report.section_health import health
from timetrial.scoring.report.section_leaderboard import leaderboard
from timetrial.scoring.report.section_method import method
from timetrial.scoring.report.section_modes import modes
from timetrial.scoring.report.section_node_time import node_time
from timetrial.scoring.report.section_other_scores import other_scores
from timetrial.scoring.report.section_problems import problems
from timetrial.scoring.report.section_profiles import profiles
from timetrial.scoring.report.section_sensitivity import sensitivity
from timetrial.scoring.report.section_times import times
from timetrial.scoring.report.section_uncertainty import uncertainty


class Section(NamedTuple):
    """A part of the page, and its name in links to it."""

    anchor: str
    title: str
    content: Callable[[Analysis], Html]


SECTIONS = (
    Section("leaderboard", "Leaderboard", leaderboard),
    Section("times", "Time to target by workload", times),
    Section("profiles", "Performance profiles", profiles),
    Section("uncertainty", "How sure", uncertainty),
    Section("sensitivity", "What the scores hang on", sensitivity),
    Section("curves", "Curves", curves),
    Section("node-time", "Where the machines' time went", node_time),
    Section("other-scores", "Other scores", other_scores),
    Section("modes", "Two ways to count times", modes),
    Section("health", "Run health", health),
    Section("problems", "Problems in the logs", problems),
    Section("method", "Method", method),
)

_WORDS = {
    "submission": "a training algorithm: an optimizer with its schedule, regularisation and tuning",
    "workload": "a model with its data, a validation metric and a target value for it",
    "trial": "one training run",
    "study": "one repetition of the experiment: one trial, or several with different hyperparameters, of which the "
    "best counts",
    "submission time": "the part of a trial's time that is charged to the algorithm; evaluation, logging and set-up "
    "are not",
    "budget": "the submission time after which a trial ends",
    "τ (tau)": "how many times the fastest time a time is",
}


def page(analysis: Analysis) -> str:
    """The whole report as HTML."""
    files = resources.files("timetrial.scoring.report")
    return Template(files.joinpath("page.html").read_text(encoding="utf-8")).substitute(
        title="Timetrial report",
        style=files.joinpath("page.css").read_text(encoding="utf-8"),
        summary=html(_summary(analysis)),
        words=folded("What the words mean", definitions(_WORDS.items())),
        contents=join(Html(f'<li><a href="#{one.anchor}">{html(one.title)}</a></li>') for one in SECTIONS),
        sections=join((_section(one, analysis) for one in SECTIONS), "\n"),
    )


def _section(section: Section, analysis: Analysis) -> Html:
    title = Html(f"<h2>{html(section.title)}</h2>")
    return Html(f'<section id="{section.anchor}">\n{title}\n{section.content(analysis)}\n</section>')


def _summary(analysis: Analysis) -> str:
    board = analysis.board
    base, held_out = len(board.eligible.columns), len(board.times.columns) - len(board.eligible.columns)
    workloads = counted(base, "workload") + (f" and {held_out} held-out" if held_out else "")
    return (
        f"{counted(len(board.scores), 'submission')}, {workloads}, {counted(len(board.trials), 'trial')}, "
        f"{board.rules.name} rules."
    )
