"""From logs on disk to times, profiles, scores and a report. Imports no framework.

rules.py            what counts: workloads, metrics, targets, studies (AlgoPerf v0.5, v0.6; pocket)
log_tree.py         finds the trials in our run directories and in AlgoPerf's log trees
readers.py          one trial's files to a plain record
time_to_target.py   one trial's evaluations to seconds; trials to study and workload times
held_out.py         which times a missed held-out workload takes away (v0.5)
profiles.py         performance profiles and their integral
leaderboard.py      all of it together, as pandas frames
ledger_parts.py machines.py         where the wall time went; on what it was run
terminal.py export.py               the leaderboard as text, as JSON or CSV
report.py plots.py                  as one HTML file (report.html and report.css are its frame)

`leaderboard.score_directories` is the entry point.
"""
