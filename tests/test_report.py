"""The HTML report: valid, self-contained, escaped, the same every time, and its numbers are the analysis's."""

import math
import re
import subprocess
import sys

import pytest
from report_page import Page
from trial_writer import write_pocket_run, write_trial

from timetrial.engine.errors import UsageError
from timetrial.scoring.analysis import analyse
from timetrial.scoring.field import read_field
from timetrial.scoring.leaderboard import score_field
from timetrial.scoring.report import plot_curves, render, section_health, write_report
from timetrial.scoring.report.page import SECTIONS
from timetrial.scoring.report.tables import percent

EVIL = 'fast & <script>alert("x")<!script>'
NAMES = ("adamw", EVIL, "sgd_with_momentum")


def analysis_of(root, rules=None, *, mode=None, resamples=200):
    return analyse(score_field(read_field([root], rules), mode), resamples=resamples)


@pytest.fixture(scope="module")
def analysis(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    write_pocket_run(root, submissions=NAMES, studies=3)
    write_trial(root, "adamw", workload="digits", study=3, metric="accuracy", curve=[(1.0, float("nan"))])
    return analysis_of(root)


@pytest.fixture(scope="module")
def text(analysis):
    return render(analysis)


@pytest.fixture(scope="module")
def page(text):
    return Page(text)


@pytest.fixture(scope="module")
def single(tmp_path_factory):
    """A field in which every submission has one study."""
    root = tmp_path_factory.mktemp("single")
    write_pocket_run(root, studies=1)
    return Page(render(analysis_of(root)))


def test_tells_which_kernels_ran_and_of_a_trial_in_which_others_did(tmp_path, text):
    assert "Kernels" not in text  # none of these trials recorded any
    fused, plain = {"softmax": ["fused", "forward, 4 bytes: 4096 4"]}, {"softmax": ["plain: it is a list"]}
    for study, kernels in enumerate([fused, fused, plain]):
        goal = {"curve": [(5.0, 0.95)], "metric": "accuracy", "goal": (0.9, "higher")}
        write_trial(
            tmp_path, workload="digits", study=study, record={"study": study, "kernels": kernels}, **goal
        )
    told = render(analysis_of(tmp_path))
    assert "softmax: fused, forward, 4 bytes: 4096 4" in told and "other kernels" in told
    assert told.count("softmax: plain: it is a list") == 2  # as a finding, and where the kernels are listed


def test_is_well_formed_with_unique_ids(text, page):
    assert text.startswith("<!DOCTYPE html>")
    assert {"svg", "table", "figure", "style"} <= page.tags
    assert len(page.ids) == len(set(page.ids))


def test_fetches_nothing_and_links_only_to_what_is_there(text, page):
    assert all(target.startswith("#") for target in page.fetches)
    assert set(re.findall(r"url\((.)", text)) <= {"#"}
    assert "@import" not in text
    assert "script" not in page.tags
    targets = {target[1:] for target in page.fetches} | set(re.findall(r"url\(#([^)]*)\)", text))
    assert targets <= set(page.ids)
    assert {section.anchor for section in SECTIONS} <= targets


def test_names_from_the_logs_are_escaped(text, page):
    assert "<script" not in text
    assert EVIL in page.words["leaderboard"]


def test_every_submission_is_in_every_section(page):
    assert list(page.words)[1:] == [section.anchor for section in SECTIONS]
    for section, words in page.words.items():
        if section not in ("", "problems"):
            assert all(name in words for name in NAMES), section


def test_the_leaderboard_has_the_scores_and_intervals(analysis, page):
    for name, score in analysis.board.scores["score"].items():
        own = analysis.over_studies.intervals.loc[name]
        cells = page.row("leaderboard", name)
        assert cells[0] == f"{score:.4f}"
        assert cells[1] == f"{own['low']:.3f}\N{EN DASH}{own['high']:.3f}"
        assert cells[4] == f"{percent(analysis.over_studies.rank_probability.at[name, 1])} %"


def test_shaded_cells_are_the_percent_of_the_analysis(analysis, page):
    shown = [
        analysis.over_studies.rank_probability,
        analysis.over_workloads.rank_probability,
        analysis.over_studies.faster,
        analysis.over_studies.outscores,
    ]
    for number, shares in enumerate(shown):
        for name in NAMES:
            wanted = ["" if column == name else percent(share) for column, share in shares.loc[name].items()]
            assert page.row("uncertainty", name, number) == wanted


@pytest.mark.parametrize(
    ("share", "shown"),
    [(0.0, "0"), (0.004, "<1"), (0.006, "1"), (0.5, "50"), (0.994, "99"), (0.996, ">99"), (1.0, "100")],
)
def test_only_exact_shares_are_printed_as_0_and_100_percent(share, shown):
    assert percent(share) == shown


def test_times_have_the_counts_of_studies_below(page):
    assert page.row("times", "forest accuracy ≥ 0.9") == ["11.50 3/4", "21.00 3/3", "31.00 3/3"]


def test_times_that_do_not_count_carry_a_sign_that_is_explained(tmp_path):
    for name, variant in (("adamw", 20.0), ("nesterov", 30.0)):
        write_trial(tmp_path, name, workload="wmt", curve=[(100.0, 10.0), (200.0, 40.0)])
        write_trial(tmp_path, name, workload="wmt_glu_tanh", curve=[(100.0, variant), (200.0, variant)])
    page = Page(render(analysis_of(tmp_path, "v0.5", mode="algoperf")))
    assert page.row("times", "wmt bleu ≥ 30.8491") == ["200.0 1/1", "200.0\N{NO-BREAK SPACE}† 1/1"]
    assert "† does not count: held-out workload missed" in page.words["times"]


def test_ranks_that_change_without_a_workload_are_marked(tmp_path):
    for workload, times in {"digits": (10, 30), "forest": (20, 10)}.items():
        for name, seconds in zip(("adamw", "nesterov"), times, strict=True):
            curve = [(float(seconds), 0.95)]
            write_trial(
                tmp_path, name, workload=workload, metric="accuracy", curve=curve, goal=(0.9, "higher")
            )
    page = Page(render(analysis_of(tmp_path, mode="exact")))
    assert page.row("sensitivity", "adamw") == ["0.833 1", "0.667 2 ▼", "1.000 1"]
    assert page.row("sensitivity", "digits") == ["nesterov over adamw"]


def test_targets_by_budget_are_a_table_too(page):
    assert page.row("curves", "sgd_with_momentum") == ["0 %", "100 %", "100 %", "100 %"]


def test_bars_of_every_trial_add_up_to_its_wall_time(analysis, page):
    assert len(page.trials) == len(analysis.board.field.ledger) == 18
    for wall, parts in page.trials:
        assert sum(parts) == wall
    assert sorted({wall for wall, _ in page.trials}) == [
        (10 * rank + study + 7) * 10**9 + 4 for rank in (1, 2, 3) for study in range(3)
    ]


def test_time_that_is_not_recorded_is_said_to_be_missing(page):
    assert page.row("node-time", "sgd_with_momentum")[-1] == "228.0 s"
    assert "adamw 1 trial" in page.words["node-time"]  # the study without records


def test_one_study_has_no_interval_and_the_page_says_why(single):
    assert single.row("leaderboard", "adamw")[1:5] == ["-", "", "-", "-"]
    for section in ("leaderboard", "profiles", "uncertainty"):
        assert "No submission has more than one study".lower() in single.words[section].lower()


def test_a_submission_with_one_study_among_others_is_named(tmp_path):
    write_pocket_run(tmp_path, submissions=("adamw", "nesterov"), studies=2)
    write_trial(
        tmp_path, "late", workload="digits", metric="accuracy", curve=[(50.0, 0.95)], goal=(0.9, "higher")
    )
    page = Page(render(analysis_of(tmp_path, mode="exact")))
    assert page.row("leaderboard", "late")[1:5] == ["-", "", "-", "-"]
    assert page.row("leaderboard", "adamw")[1] != "-"
    assert "No interval for late" in page.words["leaderboard"]
    assert "No band of their own for late" in page.words["profiles"]
    assert "nothing of its own to draw again: late." in page.words["uncertainty"]


def test_without_resamples_the_page_says_so(tmp_path):
    write_pocket_run(tmp_path, submissions=("adamw",), workloads=("digits",))
    page = Page(render(analysis_of(tmp_path, resamples=0)))
    assert page.row("leaderboard", "adamw")[1] == "-"
    for section in ("leaderboard", "profiles", "uncertainty"):
        assert "no resamples were asked for" in page.words[section].lower()
    assert "none can be left out" in page.words["sensitivity"]


def test_of_many_trials_only_the_unusual_are_listed(analysis, page, monkeypatch):
    monkeypatch.setattr(section_health, "_MOST_TRIALS", len(analysis.board.trials) - 1)
    shorter = Page(render(analysis))
    assert "Show 19 trials" in page.words["health"]
    assert "Show 1 trial" in shorter.words["health"]
    assert "Of 19 trials" in shorter.words["health"]


def test_of_many_curves_the_one_with_the_median_time_is_drawn(analysis, monkeypatch):
    assert plot_curves.trials_to_draw(analysis.board, "forest")["is_drawn"].all()
    monkeypatch.setattr(plot_curves, "MOST_TRIALS", 3)
    trials = plot_curves.trials_to_draw(analysis.board, "forest")
    drawn = trials[trials["is_drawn"]]
    assert drawn.set_index("submission")["seconds"].to_dict() == dict(
        zip(NAMES, (11.0, 21.0, 31.0), strict=True)
    )
    assert len(trials) == 9


def test_problems_say_what_was_done(analysis, page):
    assert analysis.board.problems
    for problem in analysis.board.problems:
        assert [str(problem.kind), problem.file, problem.message, problem.consequence] in page.rows[
            "problems"
        ]


def test_is_the_same_every_time(analysis, text):
    assert render(analysis) == text


def test_logs_without_ledgers_have_a_report(tmp_path):
    write_trial(tmp_path, curve=[(1.0, 40.0)])
    write_trial(tmp_path, "other", workload="ogbg", metric="mean_average_precision", curve=None)
    analysis = analysis_of(tmp_path, "v0.6", mode="algoperf")
    write_report(analysis, tmp_path / "report.html")
    page = Page((tmp_path / "report.html").read_text())
    assert "hold no ledger" in page.words["node-time"]
    assert page.row("node-time", "other")[-1] == "-"
    assert "no evaluations" in page.words["times"]
    assert math.isnan(analysis.board.trials["end_seconds"].iloc[-1])


def test_matplotlib_is_not_loaded_before_a_report_is_rendered():
    check = "import sys, timetrial.scoring.report; sys.exit('matplotlib' in sys.modules)"
    subprocess.run([sys.executable, "-c", check], check=True)


def test_without_matplotlib_the_error_names_the_extra(analysis, tmp_path, monkeypatch):
    for module in [name for name in sys.modules if name.startswith("timetrial.scoring.report.")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(UsageError, match=r"timetrial\[report\]"):
        write_report(analysis, tmp_path / "report.html")
    assert list(tmp_path.iterdir()) == []


def test_a_report_that_cannot_be_written_leaves_nothing(analysis, tmp_path):
    (tmp_path / "report.html").mkdir()
    with pytest.raises(OSError, match="directory"):
        write_report(analysis, tmp_path / "report.html")
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_a_split_larger_than_the_account_is_scaled_to_fit():
    from timetrial.scoring.ledger_parts import parts_of

    parts = parts_of({"submission": 100, "setup": 7}, {"update": 90, "drain": 15, "select": 1})
    assert sum(parts.values()) == 107
    assert (parts["update"], parts["drain"], parts["other"]) == (85, 14, 1)
