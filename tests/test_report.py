"""The HTML report: valid, self-contained, escaped, the same every time, and its bars add up."""

import re
import sys
from html.parser import HTMLParser

import pytest
from trial_writer import write_pocket_run, write_trial

from timetrial.engine.errors import UsageError
from timetrial.scoring.leaderboard import score_directories
from timetrial.scoring.report import render, write_report

VOID_TAGS = {"meta", "br", "link", "img", "input", "hr"}
FETCHING = {"src", "href", "xlink:href", "srcset", "data", "action", "poster"}


class Page(HTMLParser):
    """Checks nesting, and collects what the tests ask about."""

    def __init__(self, text):
        super().__init__()
        self.open, self.ids, self.fetches, self.trials, self.tags, self.words = [], [], [], [], set(), []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.note(tag, dict(attrs))
        if tag not in VOID_TAGS:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.note(tag, dict(attrs))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)

    def note(self, tag, attrs):
        self.tags.add(tag)
        self.fetches += [value for name, value in attrs.items() if name in FETCHING]
        if "id" in attrs:
            self.ids.append(attrs["id"])
        if "data-wall-ns" in attrs:
            self.trials.append((int(attrs["data-wall-ns"]), []))
        if "data-ns" in attrs:
            self.trials[-1][1].append(int(attrs["data-ns"]))


@pytest.fixture(scope="module")
def board(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    write_pocket_run(root, submissions=("adamw", 'fast & <script>alert("x")<!script>'), studies=1)
    write_trial(root, "adamw", workload="digits", study=1, metric="accuracy", curve=[(1.0, float("nan"))])
    return score_directories([root])


@pytest.fixture(scope="module")
def text(board):
    return render(board)


def test_is_well_formed_with_unique_ids(text):
    page = Page(text)
    assert text.startswith("<!DOCTYPE html>")
    assert {"svg", "table", "figure", "style"} <= page.tags
    assert len(page.ids) == len(set(page.ids))


def test_fetches_nothing(text):
    page = Page(text)
    assert all(target.startswith("#") for target in page.fetches)
    assert set(re.findall(r"url\((.)", text)) <= {"#"}
    assert "@import" not in text
    assert "script" not in page.tags
    targets = {target[1:] for target in page.fetches} | set(re.findall(r"url\(#([^)]*)\)", text))
    assert targets <= set(page.ids)


def test_names_from_the_logs_are_escaped(text):
    assert "<script" not in text
    assert 'fast & <script>alert("x")<!script>' in "".join(Page(text).words)


def test_the_bars_of_every_trial_add_up_to_its_wall_time(board, text):
    trials = Page(text).trials
    assert len(trials) == len(board.ledger) == 4
    for wall, parts in trials:
        assert sum(parts) == wall
    assert sorted(wall for wall, _ in trials) == sorted(
        17_000_000_004 + rank * 10**10 for rank in (0, 0, 1, 1)
    )


def test_is_the_same_every_time(board, text):
    assert render(board) == text


def test_a_split_larger_than_the_account_is_scaled_to_fit():
    from timetrial.scoring.ledger_parts import parts_of

    parts = parts_of({"submission": 100, "setup": 7}, {"update": 90, "drain": 15, "select": 1})
    assert sum(parts.values()) == 107
    assert (parts["update"], parts["drain"], parts["other"]) == (85, 14, 1)


def test_without_matplotlib_the_error_names_the_extra(board, tmp_path, monkeypatch):
    monkeypatch.delitem(sys.modules, "timetrial.scoring.plots", raising=False)
    monkeypatch.delattr("timetrial.scoring.plots", raising=False)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(UsageError, match=r"timetrial\[report\]"):
        write_report(board, tmp_path / "report.html")
    assert list(tmp_path.iterdir()) == []


def test_logs_without_ledgers_have_a_report(tmp_path):
    write_trial(tmp_path, curve=[(1.0, 40.0)])
    write_trial(tmp_path, "other", workload="ogbg", metric="mean_average_precision", curve=None)
    write_report(score_directories([tmp_path], "v0.6", "algoperf"), tmp_path / "report.html")
    words = "".join(Page((tmp_path / "report.html").read_text()).words)
    assert "hold no ledger" in words
    assert "no evaluations" in words
