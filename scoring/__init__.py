"""From logs on disk to times, profiles, scores and a report. Imports no framework.

rules.py            what counts: workloads, metrics, targets, studies (AlgoPerf v0.5, v0.6; pocket)
readers.py          run directories, ours and AlgoPerf's, to plain records
time_to_target.py   one trial's evaluations to seconds; trials to study and workload times
held_out.py         which times a missed held-out workload takes away (v0.5)
profiles.py         performance profiles and their integral
leaderboard.py      all of it together, as pandas frames
terminal.py report.py export.py     the leaderboard as text, as one HTML file, as JSON or CSV

`leaderboard.score_directories` is the entry point.
"""
