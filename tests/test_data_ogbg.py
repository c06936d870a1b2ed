"""ogbg-molpcba, from small files in exactly its owner's format, and from damaged ones."""

from itertools import islice

import numpy as np
import pytest
from graph_maker import graph_numbers
from ogbg_maker import BONDS, COUNT, SIZES, SPLITS, owner_files, packed, write_archive, write_folder

from timetrial.data_loading import ogbg, ogbg_files
from timetrial.data_loading.graphs import PackedGraphs, with_both_directions
from timetrial.data_loading.prepared import open_arrays
from timetrial.engine.errors import DataError
from timetrial.engine.facts import Order

GRAPHS = with_both_directions(BONDS)


def converted(source):
    """The packed graphs of every split."""
    arrays = ogbg.split_arrays(source, SIZES)
    splits = {split: PackedGraphs.of(arrays["evaluation"], f"{split}_") for split in ("validation", "test")}
    evaluated = PackedGraphs.of(arrays["evaluation"], "eval_train_")
    return splits | {"train": PackedGraphs.of(arrays["training"]), "eval_train": evaluated}


def assert_are(graphs, numbers):
    wanted = GRAPHS.take(numbers)
    for key, array in wanted.arrays().items():
        found = getattr(graphs, key)
        assert found.dtype == array.dtype, key
        np.testing.assert_array_equal(found, array, err_msg=key)


@pytest.mark.parametrize("form", ["archive", "pcba", "ogbg_molpcba", "."])
@pytest.mark.parametrize("rows_at_once", [7, 1_000_000])
def test_all_forms_become_the_same_graphs(tmp_path, monkeypatch, form, rows_at_once):
    monkeypatch.setattr(ogbg_files, "ROWS_AT_ONCE", rows_at_once)
    if form == "archive":
        write_archive(tmp_path / "pcba.zip", owner_files())
    else:
        write_folder(tmp_path / form, owner_files())
    splits = converted(tmp_path)
    assert_are(splits["train"], SPLITS["train"])
    assert_are(splits["validation"], SPLITS["valid"])
    assert_are(splits["test"], SPLITS["test"])
    assert_are(splits["eval_train"], SPLITS["train"][::4])


def test_labels_that_nobody_measured_are_empty_cells():
    rows = owner_files()["raw/graph-label"]
    cells = np.array([row.split(",") for row in rows])
    assert set(np.unique(cells)) == {"", "0.0", "1.0"} and cells.shape == (COUNT, 128)
    assert ((cells == "") == (BONDS.labels < 0)).all() and ((cells == "1.0") == (BONDS.labels == 1)).all()


@pytest.fixture
def prepared(tmp_path, monkeypatch):
    monkeypatch.setattr(ogbg, "SIZES", SIZES)
    write_archive(tmp_path / "source/pcba.zip", owner_files())
    ogbg.prepare(tmp_path / "data", tmp_path / "source")
    return tmp_path / "data"


def test_training_and_evaluation_see_their_own_graphs(prepared):
    batches = islice(ogbg.training_batches(prepared, Order(batch_size=4, seed=0)), 12)
    seen = [number for batch in batches for number in graph_numbers(batch)]
    assert sorted(seen[:24]) == sorted(SPLITS["train"])
    for split, numbers in (("validation", SPLITS["valid"]), ("test", SPLITS["test"])):
        batches = list(ogbg.evaluation_batches(prepared, split, 3))
        assert [number for batch in batches for number in graph_numbers(batch)] == numbers.tolist()
        assert batches[0]["targets"].shape == (64, 128)
        known = sum(batch["weights"].sum() for batch in batches)
        assert known == (BONDS.labels[numbers] >= 0).sum()


def test_the_training_process_finds_no_held_out_graph(prepared):
    arrays = open_arrays(prepared, "training", ogbg.NAME, ogbg.VERSION)
    assert len(arrays["n_node"]) == 24
    assert set(np.asarray(arrays["nodes"])[:, 0]) == set(SPLITS["train"])


def test_it_is_converted_once(prepared):
    ogbg.prepare(prepared, None)  # would ask for the owner's files


def changed(**rows):
    """The files with some rows replaced: name -> {row (from 1): text}."""
    files = owner_files()
    for name, replaced in rows.items():
        path = f"raw/{name.replace('_', '-')}"
        for row, text in replaced.items():
            files[path][row - 1] = text
    return files


def row_of_a_bond(graph):
    return int(BONDS.n_edge[:graph].sum()) + 1


BONDED = int(np.flatnonzero(BONDS.n_edge)[3])
NINE = "1,2,3,4,5,6,7,8,9"


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            changed(node_feat={5: NINE.replace("3", "")}),
            r"node-feat\.csv\.gz.*: row 5 is not 9 whole numbers",
        ),
        (changed(node_feat={6: NINE.replace("3", "nan")}), "node-feat.*row 6 is not 9 whole numbers"),
        (changed(node_feat={7: NINE.replace("3", "300")}), "row 7 is not 9 whole numbers from 0 to 255"),
        (changed(node_feat={8: NINE.replace("3", "2.5")}), "row 8 is not 9 whole numbers"),
        (changed(node_feat={9: NINE.replace("3", "-1")}), "row 9 is not 9 whole numbers"),
        (changed(node_feat={9: NINE.replace("3", "abc")}), "row 9 is not 9 numbers"),
        (changed(node_feat={9: ""}), "row 9 is not 9 whole numbers"),
        (changed(node_feat={1: "1,2,3"}), "node-feat.*not rows of 9 numbers|row 1 has 3 columns, not 9"),
        (changed(node_feat={4: f"{NINE},1"}), "node-feat.* is not rows of 9 numbers: .*line 4, saw 10"),
        (changed(edge_feat={2: "1,1"}), "edge-feat.*row 2 is not 3 whole numbers"),
        (changed(num_node_list={3: "x"}), "num-node-list.*row 3 is not 1 numbers"),
        (changed(num_node_list={3: str(BONDS.n_node[2] + 1)}), r"node-feat.* has \d+ rows, not \d+ as"),
        (changed(num_edge_list={3: str(BONDS.n_edge[2] + 1)}), r"edge-feat.* has \d+ rows, not \d+ as"),
        (
            changed(graph_label={11: "," * 126 + "2.0"}),
            "graph-label.*row 11 is not 128 labels 0, 1 or nothing",
        ),
        (
            changed(edge={row_of_a_bond(BONDED): f"0,{BONDS.n_node[BONDED]}"}),
            f"edge.*row {row_of_a_bond(BONDED)} names an atom beyond the {BONDS.n_node[BONDED]} of graph {BONDED}",
        ),
    ],
)
def test_bad_rows_are_named(tmp_path, files, message):
    write_archive(tmp_path / "pcba.zip", files)
    with pytest.raises(DataError, match=message):
        ogbg.split_arrays(tmp_path, SIZES)


@pytest.mark.parametrize("name", ["raw/edge", "raw/graph-label", "split/scaffold/valid"])
def test_missing_files_and_rows_are_named(tmp_path, name):
    files = owner_files()
    rows = files.pop(name)
    write_archive(tmp_path / "zipped/pcba.zip", files)
    with pytest.raises(DataError, match=rf"pcba\.zip has no pcba/{name}\.csv\.gz"):
        ogbg.split_arrays(tmp_path / "zipped", SIZES)
    write_folder(tmp_path / "folder/pcba", files)
    with pytest.raises(DataError, match=rf"{name}\.csv\.gz is missing"):
        ogbg.split_arrays(tmp_path / "folder", SIZES)
    write_folder(tmp_path / "folder/pcba", {name: rows[:-1]})
    counts = f"the validation split .* has {len(rows) - 1} graphs, not {len(rows)}"
    with pytest.raises(DataError, match=rf"{name}.* has {len(rows) - 1} rows, not {len(rows)}|{counts}"):
        ogbg.split_arrays(tmp_path / "folder", SIZES)


def test_a_source_without_the_files_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"give the folder that holds pcba\.zip"):
        ogbg.prepare(tmp_path / "data", None)
    with pytest.raises(DataError, match=r"holds neither pcba\.zip nor a folder pcba"):
        ogbg.prepare(tmp_path / "data", tmp_path)
    assert not (tmp_path / "data/training").exists()


@pytest.mark.parametrize("damage", [lambda b: b[:-9], lambda b: b[: len(b) // 2], lambda b: b"no gzip"])
def test_damaged_files_are_named(tmp_path, damage):
    write_folder(tmp_path, owner_files())
    path = tmp_path / "raw/node-feat.csv.gz"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match=r"node-feat\.csv\.gz is damaged"):
        ogbg.split_arrays(tmp_path, SIZES)


def test_a_damaged_archive_is_named(tmp_path):
    write_archive(tmp_path / "pcba.zip", owner_files())
    content = (tmp_path / "pcba.zip").read_bytes()
    (tmp_path / "pcba.zip").write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r"pcba\.zip is damaged"):
        ogbg.split_arrays(tmp_path, SIZES)


def test_a_graph_in_two_splits_is_refused(tmp_path):
    write_folder(tmp_path, owner_files())
    twice = [*SPLITS["test"][:-1], SPLITS["train"][0]]
    (tmp_path / "split/scaffold/test.csv.gz").write_bytes(packed(map(str, twice)))
    with pytest.raises(DataError, match=f"name graph {SPLITS['train'][0]} 2 times"):
        ogbg.split_arrays(tmp_path, SIZES)


def test_sizes_are_the_full_dataset():
    assert ogbg.Sizes() == ogbg.Sizes(train=350_343, eval_train=43_793, validation=43_793, test=43_793)
    assert 2e8 < ogbg.disk_need(None) < 5e8
