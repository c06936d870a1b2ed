"""Properties of the whole way from trials to scores, in both modes: what must not matter, and what must not hurt."""

import dataclasses
import math
import random

import pandas as pd
import pytest
from field_maker import field_of, trial
from hypothesis import given, settings
from hypothesis import strategies as st
from trial_writer import write_trial

from timetrial.scoring.field import read_field
from timetrial.scoring.leaderboard import score_field
from timetrial.scoring.rules import POCKET, V05, V06

INF = math.inf
MODES = ("exact", "algoperf")
WORKLOADS = ("ogbg", "ogbg_model_size", "wmt", "wmt_glu_tanh")

seconds = st.floats(5.0, 500.0).map(lambda value: round(value, 3)) | st.just(INF)


@st.composite
def trials(draw):
    """Up to three submissions with up to three studies of up to three trials on some workloads."""
    rows = []
    for number in range(draw(st.integers(1, 3))):
        for workload in draw(st.lists(st.sampled_from(WORKLOADS), min_size=1, unique=True)):
            for study in range(draw(st.integers(1, 3))):
                for index in range(1, draw(st.integers(1, 3)) + 1):
                    time = draw(seconds)
                    row = draw(st.integers(0, 4)) if time < INF else -1
                    rows.append(trial(f"s{number}", workload, study, index, time, row=row))
    return rows


def scores_of(rows, mode, rules):
    return score_field(field_of(rows, rules), mode).scores["score"].sort_index()


rulesets = st.sampled_from([V05, V06, POCKET])


@settings(deadline=None, max_examples=10)
@given(trials(), rulesets, st.randoms(use_true_random=False))
def test_numbers_and_order_of_trials_and_studies_do_not_matter(rows, rules, generator):
    order = {
        (row["submission"], row["workload"], row["study"], row["trial"]): generator.random() for row in rows
    }
    studies = {study: place for place, study in enumerate(generator.sample(range(3), 3))}
    renumbered = []
    for row in rows:
        key = (row["submission"], row["workload"], row["study"])
        own = sorted((order[(*key, number)], number) for number in range(1, 4) if (*key, number) in order)
        place = [number for _, number in own].index(row["trial"])
        renumbered.append(row | {"trial": place + 1, "study": studies[row["study"]]})
    generator.shuffle(renumbered)
    for mode in MODES:
        pd.testing.assert_series_equal(scores_of(rows, mode, rules), scores_of(renumbered, mode, rules))


@settings(deadline=None, max_examples=10)
@given(trials(), rulesets)
def test_names_of_submissions_do_not_matter(rows, rules):
    renamed = [row | {"submission": {"s0": "z", "s1": "m", "s2": "a"}[row["submission"]]} for row in rows]
    for mode in MODES:
        before, after = scores_of(rows, mode, rules), scores_of(renamed, mode, rules)
        assert before.tolist() == [after[{"s0": "z", "s1": "m", "s2": "a"}[name]] for name in before.index]


@settings(deadline=None, max_examples=15)
@given(trials(), rulesets, st.data())
def test_a_faster_trial_never_lowers_the_score(rows, rules, data):
    place = data.draw(st.integers(0, len(rows) - 1))
    time = data.draw(st.floats(1.0, 4.9))
    row = rows[place]
    faster = rows.copy()
    faster[place] = trial(
        row["submission"], row["workload"], row["study"], row["trial"], time, row=max(row["row"], 0)
    )
    for mode in MODES:
        if mode == "algoperf" and row["row"] < 0:
            continue  # of a study, that mode takes the earliest evaluation, be it slower
        name = row["submission"]
        assert scores_of(faster, mode, rules)[name] >= scores_of(rows, mode, rules)[name] - 1e-9


@settings(deadline=None, max_examples=10)
@given(trials(), rulesets, st.floats(1.0, 3.0))
def test_a_submission_slower_everywhere_changes_no_other_score(rows, rules, factor):
    slow = []
    for workload in sorted({row["workload"] for row in rows}):
        worst = max(row["seconds"] for row in rows if row["workload"] == workload)
        slow += [trial("slow", workload, study, 1, worst * factor) for study in range(3)]
    for mode in MODES:
        before = scores_of(rows, mode, rules)
        pd.testing.assert_series_equal(before, scores_of(rows + slow, mode, rules).drop("slow"))


@pytest.mark.parametrize("seed", range(3))
def test_the_order_in_which_files_were_made_does_not_matter(tmp_path, seed):
    plans = [
        (submission, workload, study, number)
        for submission in ("a", "b")
        for workload in ("u", "v")
        for study in (0, 1)
        for number in (1, 2)
    ]
    times = {plan: 10.0 + place for place, plan in enumerate(plans)}
    fields = []
    for name, generator in (("first", random.Random(0)), ("second", random.Random(seed + 1))):
        for submission, workload, study, number in generator.sample(plans, len(plans)):
            hit = times[submission, workload, study, number]
            write_trial(
                tmp_path / name,
                submission,
                workload=workload,
                study=study,
                trial=number,
                metric="accuracy",
                curve=[(hit / 2, 0.5), (hit, 0.95)],
                goal=(0.9, "higher"),
            )
        fields.append(read_field([tmp_path / name]))
    first, second = (field.trials.drop(columns="path") for field in fields)
    pd.testing.assert_frame_equal(first, second)
    pd.testing.assert_frame_equal(fields[0].curves, fields[1].curves)


@settings(deadline=None, max_examples=10)
@given(trials(), st.sampled_from(MODES))
def test_scoring_changes_nothing_that_it_was_given(rows, mode):
    field = field_of(rows)
    before = field.trials.copy(deep=True)
    first = score_field(field, mode)
    again = score_field(dataclasses.replace(field), mode)
    pd.testing.assert_frame_equal(field.trials, before)
    pd.testing.assert_frame_equal(first.scores, again.scores)
