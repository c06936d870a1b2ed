"""The HTML report in a browser: nothing is wider than the screen, on a desk and on a phone, and it is not blank."""

import re
import shutil
import subprocess
from html import escape

import pytest
from PIL import Image
from trial_writer import write_pocket_run, write_trial

from timetrial.scoring.analysis import analyse
from timetrial.scoring.field import read_field
from timetrial.scoring.leaderboard import score_field
from timetrial.scoring.report import render

CHROMIUM = next(filter(None, map(shutil.which, ["chromium", "chromium-browser", "google-chrome"])), None)
OPTIONS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
]
WIDTHS = [1280, 390]
HEIGHT = 3000

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on PATH")


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    names = [f"{name}_with_a_name_of_its_own" for name in ("adamw", "nesterov", "shampoo", "muon", "sgd")]
    write_pocket_run(root, submissions=names, workloads=("digits", "forest", "iris"), studies=2)
    write_trial(root, names[0], workload="digits", study=2, metric="accuracy", curve=[(1.0, float("nan"))])
    return render(analyse(score_field(read_field([root])), resamples=100))


def browse(tmp_path, page, *options):
    """What Chromium prints for a page."""
    (tmp_path / "page.html").write_text(page, encoding="utf-8")
    command = [CHROMIUM, *OPTIONS, f"--user-data-dir={tmp_path / 'profile'}", *options]
    run = subprocess.run(
        [*command, (tmp_path / "page.html").as_uri()], capture_output=True, text=True, timeout=300, check=True
    )
    return run.stdout


def framed(report, width):
    """The report in a frame: a window of Chromium cannot be as narrow as a phone."""
    return (
        f'<!DOCTYPE html><html><head><meta charset="utf-8"></head><body style="margin:0"><iframe id="report" '
        f'style="border:0;width:{width}px;height:{HEIGHT}px" srcdoc="{escape(report)}"></iframe></body></html>'
    )


def width_needed(tmp_path, report, width):
    measure = (
        "<script>onload = () => { document.title = 'width ' + "
        "document.getElementById('report').contentDocument.documentElement.scrollWidth; }</script></body>"
    )
    page = framed(report, width).replace("</body></html>", measure + "</html>")
    return int(re.search(r"<title>width (\d+)</title>", browse(tmp_path, page, "--dump-dom"))[1])


@pytest.mark.parametrize("width", WIDTHS)
def test_the_page_is_not_wider_than_the_screen(tmp_path, report, width):
    assert width_needed(tmp_path, report, width) == width


def test_folded_parts_are_not_wider_than_a_phone_either(tmp_path, report):
    assert width_needed(tmp_path, report.replace("<details>", "<details open>"), 390) == 390


def test_the_measure_sees_what_is_too_wide(tmp_path, report):
    wider = report.replace("<main>", '<main><div style="width:700px">wide</div>')
    assert width_needed(tmp_path, wider, 390) > 700


@pytest.mark.parametrize("width", WIDTHS)
def test_a_screenshot_shows_the_report(tmp_path, report, width):
    shot = tmp_path / "shot.png"
    browse(tmp_path, framed(report, width), f"--screenshot={shot}", f"--window-size=1280,{HEIGHT}")
    with Image.open(shot) as image:
        assert image.size == (1280, HEIGHT)
        shown = image.convert("RGB").crop((0, 0, width, HEIGHT))
    for top in range(0, HEIGHT, 1000):
        colours = shown.crop((0, top, width, top + 1000)).getcolors(maxcolors=1 << 20)
        assert len(colours) > 50, f"blank between {top} and {top + 1000} pixels"
