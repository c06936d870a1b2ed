"""From logs on disk to times, scores, how sure they are, and a report. Imports no framework.

    from timetrial.scoring.field import read_field
    from timetrial.scoring.leaderboard import score_field
    from timetrial.scoring.analysis import analyse

    field = read_field(["runs"])        # everything that was read, as pandas frames
    board = score_field(field)          # times, scores, ranks
    analysis = analyse(board)           # error bars, health, other scores

Data flows down this list; every function takes pandas or NumPy and returns it, and keeps nothing.

rules.py                    what counts: one record a version of AlgoPerf, and one for pocket runs
problems.py                 what can be wrong with logs
log_tree.py                 finds the trials in our run directories and in AlgoPerf's log trees
evaluations.py trial_log.py reads one trial's files; machines.py, ledger_parts.py say where and on what its time went
trial_row.py                one trial as one row
field_reader.py field.py    a whole group of submissions, in several processes if it is large
time_to_target.py           from trials to studies to workloads, in both modes
score.py                    held-out rules, ratios, profiles and scores, on arrays
leaderboard.py              all of it together; completeness.py says what is missing
resampling.py               bootstrap, rank probabilities, what the evaluation cadence hides
sensitivity.py              without one workload, without one submission, with another tau
mode_differences.py         where the two modes disagree, and why
health.py findings.py       how every trial ended and what is suspicious, as data and in words; memory_logs.py
other_scores.py anytime.py  speed-ups, penalised times, steps to target, curves over the budget
stored.py                   scores against frozen best times; paces stored by an earlier scoring
analysis.py                 everything above, computed once
terminal.py tables.py       shown as text, as CSV, Markdown or LaTeX
export.py                   as JSON
report/                     as one HTML file
"""
