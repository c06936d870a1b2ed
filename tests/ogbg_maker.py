"""A small ogbg-molpcba in its owner's format: gzipped rows of numbers, in a folder or a zip archive."""

import gzip
import zipfile

import numpy as np
from graph_maker import made_bonds

from timetrial.data_loading.ogbg import NUM_TASKS, Sizes

COUNT = 40
SIZES = Sizes(train=24, eval_train=6, validation=8, test=8)
BONDS = made_bonds(COUNT, 5, tasks=NUM_TASKS)
_ORDER = np.random.default_rng(1).permutation(COUNT)
SPLITS = {"train": _ORDER[:24], "valid": _ORDER[24:32], "test": _ORDER[32:]}


def _rows(array):
    return ["".join(f"{value}," for value in row)[:-1] for row in array.tolist()]


def owner_files(bonds=BONDS):
    """Rows of text by file name."""
    labels = [
        ",".join("" if label < 0 else f"{float(label)}" for label in row) for row in bonds.labels.tolist()
    ]
    return {
        "raw/num-node-list": [str(number) for number in bonds.n_node],
        "raw/num-edge-list": [str(number) for number in bonds.n_edge],
        "raw/node-feat": _rows(bonds.nodes),
        "raw/edge-feat": _rows(bonds.edges),
        "raw/edge": _rows(np.stack([bonds.senders, bonds.receivers], 1)),
        "raw/graph-label": labels,
        **{f"split/scaffold/{name}": [str(number) for number in rows] for name, rows in SPLITS.items()},
    }


def packed(rows):
    return gzip.compress("".join(f"{row}\n" for row in rows).encode())


def write_folder(root, files):
    for name, rows in files.items():
        path = root / f"{name}.csv.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(packed(rows))


def write_archive(path, files):
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name, rows in files.items():
            archive.writestr(f"pcba/{name}.csv.gz", packed(rows))
