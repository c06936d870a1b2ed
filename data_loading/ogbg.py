"""ogbg-molpcba: 437,929 molecules as graphs, each tested in some of 128 biological assays.

Converted once from the owner's files (`ogbg_files.py`) to the packed arrays of `graphs.py`, 0.34 GB. Features are
OGB's integer codes, 9 of an atom and 3 of a bond, used as numbers; a bond becomes two directed edges with the same
features: first all bonds of a molecule as given, then all reversed. A label is 1, 0, or unknown where a molecule was
not tested. Splits are OGB's, by scaffold. Evaluated training graphs are spread evenly over the training split.

AlgoPerf shuffles in a buffer of 32,768 graphs; here every epoch is a permutation (`graph_batches.py`).

Source: Hu et al., "Open Graph Benchmark", arXiv 2005.00687, from MoleculeNet; counts are those of AlgoPerf.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from timetrial.data_loading import graph_batches
from timetrial.data_loading.batches import evenly_spread
from timetrial.data_loading.graph_batches import Averages
from timetrial.data_loading.graphs import PackedGraphs, with_both_directions
from timetrial.data_loading.ogbg_files import ARCHIVE, OwnerFiles, read_bonds, read_splits
from timetrial.data_loading.parts import given
from timetrial.data_loading.prepared import Arrays, Side, open_arrays, prepare_once
from timetrial.engine.errors import DataError
from timetrial.engine.facts import Batch, Dataset, Order, Split

NAME = "ogbg"
VERSION = 1
OWNER_FILES = f"{ARCHIVE} of OGB's ogbg-molpcba, or the folder pcba (or ogbg_molpcba) extracted from it"
NUM_TASKS = 128
AVERAGES = Averages(nodes=26, edges=56)  # AlgoPerf's


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Graphs per split."""

    train: int = 350_343
    eval_train: int = 43_793
    validation: int = 43_793
    test: int = 43_793


SIZES = Sizes()


def prepare(folder: Path, source: Path | None = None) -> None:
    """Convert the owner's files in `source`, which takes a minute.

    DataError where a file is missing, damaged or of other contents than it should have; it names file and row.
    """
    prepare_once(folder, NAME, VERSION, lambda: split_arrays(given(source, NAME, OWNER_FILES), SIZES))


def split_arrays(source: Path, sizes: Sizes) -> Mapping[Side, Arrays]:
    """All splits from the owner's files. DataError as `prepare`."""
    files = OwnerFiles(source)
    graphs = with_both_directions(read_bonds(files, NUM_TASKS))
    rows = read_splits(files, len(graphs))
    for split, numbers in rows.items():
        if len(numbers) != getattr(sizes, split):
            raise DataError(
                f"the {split} split below {source} has {len(numbers):,} graphs, not {getattr(sizes, split):,}"
            )
    train = rows.pop("train")
    rows["eval_train"] = train[evenly_spread(len(train), sizes.eval_train, "the training split")]
    evaluation: dict[str, np.ndarray] = {}
    for split, numbers in rows.items():
        evaluation |= graphs.take(numbers).arrays(f"{split}_")
    return {"training": graphs.take(train).arrays(), "evaluation": evaluation}


def disk_need(source: Path | None) -> int:
    """Bytes of all arrays, with 26.0 atoms and 56.2 directed edges a molecule."""
    del source
    a_graph = 8 + NUM_TASKS + 9 * 27 + (3 + 2 * 2) * 57
    return (SIZES.train + SIZES.eval_train + SIZES.validation + SIZES.test) * a_graph


def training_batches(folder: Path, order: Order) -> Iterator[Batch]:
    """Batches of `graph_batches.py`, without end."""
    graphs = PackedGraphs.of(open_arrays(folder, "training", NAME, VERSION))
    return graph_batches.training_batches(graphs, order, AVERAGES)


def evaluation_batches(
    folder: Path, split: Split, batch_size: int, gpu: int | None = None
) -> Iterable[Batch]:
    """One split in OGB's order, in batches of `graph_batches.py`."""
    del gpu
    graphs = PackedGraphs.of(open_arrays(folder, "evaluation", NAME, VERSION), f"{split}_")
    return graph_batches.evaluation_batches(graphs, batch_size, AVERAGES)


DATASET = Dataset(
    name=NAME,
    version=VERSION,
    licence="ogbg-molpcba (Open Graph Benchmark, from MoleculeNet), MIT; obtained by the user from its owner",
    package=None,
    owner_files=OWNER_FILES,
    prepare=prepare,
    disk_need=disk_need,
    training_batches=training_batches,
    evaluation_batches=evaluation_batches,
)
