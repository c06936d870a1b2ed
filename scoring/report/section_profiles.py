"""Performance profiles, all in one plot and each with its confidence band."""

import numpy as np

from timetrial.scoring.analysis import Analysis
from timetrial.scoring.report.looks import legend, looks
from timetrial.scoring.report.markup import Html, figure, figures, heading, join, listed, note, paragraph
from timetrial.scoring.report.plot_lines import band_svg, lines_svg
from timetrial.scoring.resampling import profile_bands

_POINTS = 100  # at which bands are stated


def profiles(analysis: Analysis) -> Html:
    board, sure = analysis.board, analysis.over_studies
    styles = looks(board.scores.index)
    labels = ("factor τ of the fastest time", "share of workloads within τ")
    overview = lines_svg(board.profiles, styles, "profile", labels)
    parts = [
        paragraph(
            "A profile tells on what share of the workloads a submission reaches the target within τ times the "
            "fastest time, for every τ.",
            "Higher and further left is better. The score is the area under the line, over its width.",
        ),
        legend(styles, "profile"),
        figure("All profiles", overview, "single"),
        heading("Each profile with its 95 % band"),
    ]
    if sure is None:
        return join([*parts, paragraph("There are no bands, because no resamples were asked for.")])
    single = sure.intervals["low"].isna()
    if single.all():
        reason = "There are no bands: no submission has more than one study, so there is nothing to resample."
        return join([*parts, paragraph(reason)])
    taus = np.linspace(1.0, board.rules.tau_max, _POINTS)
    bands = profile_bands(board, taus, seed=sure.seed)
    small = [
        figure(
            submission,
            band_svg(
                board.profiles, submission, (taus, bands[submission]), styles[submission], f"band{number}"
            ),
        )
        for number, submission in enumerate(map(str, board.profiles.columns))
    ]
    return join(
        [
            *parts,
            paragraph(
                "The coloured area holds 95 % of the profiles of resampled studies. The thin lines are the other "
                "submissions."
            ),
            figures(small, "small"),
            note(
                f"No band of their own for {listed(list(single[single].index))}: with one study there is nothing to "
                "resample, and what area there is comes from the others."
                if single.any()
                else ""
            ),
        ]
    )
