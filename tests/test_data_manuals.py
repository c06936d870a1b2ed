"""The twin's sentences: packages fetched from a mirror, read, paired by paragraph and split by page."""

import hashlib
import io
import lzma
import tarfile
from itertools import islice

import numpy as np
import pytest

from timetrial.data_loading import deb, debian, manuals
from timetrial.data_loading.manuals import Pair, Sizes, by_split, pages, prose_pairs
from timetrial.engine.errors import DataError
from timetrial.engine.facts import Order

GERMAN = ("klicken", "Seite", "öffnen", "auf", "Zelle", "Bild", "wählen", "Sie")
ENGLISH = ("click", "page", "open", "on", "cell", "image", "choose", "you")


def made_sentences(page):
    """Ten paragraphs of a page: number, German, English."""
    draw = np.random.default_rng(page)
    for number in range(10):
        words = draw.integers(0, len(GERMAN), 7)
        yield (
            f"par_id{page}{number}",
            *(" ".join(language[i] for i in words) for language in (GERMAN, ENGLISH)),
        )


def page_of(paragraphs):
    body = "".join(f'<p id="{number}" class="paragraph">{text}</p>\n' for number, text in paragraphs)
    return f"<!DOCTYPE html><html><body><p>unnumbered</p>{body}</body></html>"


def ar_of(members):
    """An ar archive; members begin at even bytes."""
    content = b"!<arch>\n"
    for name, data in members.items():
        content += f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(data):<10}`\n".encode() + data
        content += b"\n" * (len(data) % 2)
    return content


def package_of(files, compression="xz"):
    """A .deb that would install these files."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode=f"w:{compression}") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(f"./{name}")
            member.size = len(content.encode())
            tar.addfile(member, io.BytesIO(content.encode()))
    return ar_of(
        {"debian-binary": b"2.0\n", "control.tar.xz": b"odd", f"data.tar.{compression}": data.getvalue()}
    )


def help_package(language, num_pages=40):
    side = 1 if language == "de" else 2
    files = {f"usr/share/libreoffice/help/{language}/index.html": page_of([("a", "not of a page at all")])}
    for page in range(num_pages):
        paragraphs = [(sentence[0], sentence[side]) for sentence in made_sentences(page)]
        files[f"usr/share/libreoffice/help/{language}/text/swriter/{page:02}.html"] = page_of(paragraphs)
    return package_of(files)


def write_mirror(folder, packages):
    """A mirror with one suite; its address."""
    index = ""
    for name, content in packages.items():
        path = f"pool/main/{name}_7.4.7-1_all.deb"
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
        digest = hashlib.sha256(content).hexdigest()
        index += f"Package: {name}\nVersion: 4:7.4.7-1\nFilename: {path}\nSHA256: {digest}\n\n"
    suite = folder / "dists/bookworm"
    (suite / "main/binary-amd64").mkdir(parents=True)
    compressed = lzma.compress(index.encode())
    (suite / debian.INDEX).write_bytes(compressed)
    digest = hashlib.sha256(compressed).hexdigest()
    (suite / "Release").write_text(
        f"Suite: bookworm\nMD5Sum:\n {'0' * 32} {len(compressed)} {debian.INDEX}\n"
        f"SHA256:\n {'1' * 64} 99 main/binary-all/Packages.xz\n {digest} {len(compressed):8} {debian.INDEX}\n"
    )
    return f"file://{folder}"


@pytest.fixture
def mirror(tmp_path, monkeypatch):
    packages = {package: help_package(language) for language, package in manuals.PACKAGES.items()}
    address = write_mirror(tmp_path / "mirror", packages)
    monkeypatch.setenv(debian.MIRROR_VARIABLE, address)
    return tmp_path / "mirror"


@pytest.fixture
def prepared(mirror, tmp_path, monkeypatch):
    monkeypatch.setattr(manuals, "SIZES", Sizes(train=340, eval_train=5, validation=7, test=6))
    monkeypatch.setattr(manuals, "NUM_TOKENS", 40)
    everything = "\n".join(
        f"swriter/{page:02}.html\t{german}\t{english}"
        for page in range(40)
        for _, german, english in made_sentences(page)
    )
    monkeypatch.setattr(manuals, "TEXT_SHA256", hashlib.sha256(everything.encode()).hexdigest())
    manuals.prepare(tmp_path / "data")
    return tmp_path / "data"


def texts_of(batches, tokenizer):
    pairs = []
    for batch in batches:
        for row in np.flatnonzero(batch["weights"].sum(axis=1)):
            sides = [batch[key][row][batch[f"{key}_segmentation"][row] == 1] for key in ("inputs", "targets")]
            pairs.append(tuple(tokenizer.decode(sides)))
    return pairs


def test_prepared_splits_are_whole_pages_in_order(prepared):
    tokenizer = manuals.load_tokenizer(prepared)
    assert tokenizer.vocab_size == 40
    for split, held_pages, count in (("validation", (0, 16, 32), 7), ("test", (8, 24), 6)):
        batches = list(manuals.evaluation_batches(prepared, split, 4))
        assert {batch["inputs"].shape for batch in batches} == {(4, manuals.LENGTH)}
        held = [pair for page in held_pages for _, *pair in made_sentences(page)]
        expected = [tuple(held[i * len(held) // count]) for i in range(count)]
        assert texts_of(batches, tokenizer) == expected
    trained = {tuple(pair) for page in range(40) if page % 8 for _, *pair in made_sentences(page)}
    assert set(texts_of(manuals.evaluation_batches(prepared, "eval_train", 4), tokenizer)) <= trained
    for batch in islice(manuals.training_batches(prepared, Order(batch_size=8, seed=0)), 5):
        assert batch["inputs"].shape == (8, manuals.LENGTH)
        assert set(texts_of([batch], tokenizer)) <= trained


def test_no_held_out_page_is_left_for_a_training_process(prepared):
    assert not list((prepared / "downloads").glob("*.deb"))
    pairs = manuals.TokenPairs([manuals.open_arrays(prepared, "training", "manuals", manuals.VERSION)])
    assert len(pairs) == 10 * sum(page % 8 != 0 for page in range(40))


def test_other_text_than_the_pinned_is_refused(mirror, tmp_path):
    with pytest.raises(
        DataError, match=r"hold 400 pairs with sha256 [0-9a-f]{64}, not the text of LibreOffice"
    ):
        manuals.prepare(tmp_path / "data")


def test_paragraphs_are_the_numbered_ones_as_they_are_shown(tmp_path):
    page = (
        '<h1 id="hd_1"><a name="x"></a>A  heading\n of two lines</h1><p>none</p>'
        '<p id="par_1">Press <span class="keys"><span hidden="true" class="MAC">Command</span>'
        '<span hidden="true" id="default">Ctrl</span></span>+Z &amp; wait<br>here</p><div>outside</div>'
    )
    path = tmp_path / "a.deb"
    path.write_bytes(
        package_of(
            {
                "usr/share/libreoffice/help/en-US/text/a/b.html": page,
                "usr/share/libreoffice/help/en-US/text/a/b.js": page,
                "usr/share/libreoffice/help/de/text/a/c.html": page,
            }
        )
    )
    assert pages(path, "en-US") == {
        "a/b.html": [("hd_1", "A heading of two lines"), ("par_1", "Press Ctrl+Z & wait here")]
    }


def test_pairs_are_prose_that_both_pages_number_once():
    english = [
        ("1", "Choose a cell and click."),
        ("2", "Too few words"),
        ("3", "This one has 4 words and a digit."),
        ("4", "The same in both languages."),
        ("5", "Twice in the German page."),
        ("6", "Only in the English page."),
        ("7", "x" * 120 + " is much too long"),
        ("8", "Choose a cell and click."),
        ("9", "A formula such as A=B here."),
    ]
    german = {number: f"Absatz: {text.lower()}" for number, text in english if number != "6"}
    german["4"], german["8"] = english[3][1], german["1"]
    rows = [*german.items(), ("5", "noch einmal")]
    found = prose_pairs({"p": rows, "q": [("1", "Nur auf Deutsch.")]}, {"p": english})
    assert found == [Pair("p", german["1"], english[0][1])]


def test_a_held_out_sentence_is_in_no_training_page():
    pairs = [
        Pair(f"{page:02}", f"deutsch {page} {i}", f"english {page} {i}")
        for page in range(16)
        for i in range(3)
    ]
    pairs[0] = pairs[0]._replace(german="deutsch 3 1")  # page 0 validates, page 3 trains
    pairs[8 * 3] = pairs[8 * 3]._replace(english="english 5 2")
    splits = by_split(pairs)
    assert [pair.english for pair in splits["validation"]] == ["english 0 1", "english 0 2"]
    assert [pair.german for pair in splits["test"]] == ["deutsch 8 1", "deutsch 8 2"]
    assert len(splits["train"]) == 14 * 3


@pytest.mark.parametrize("compression", ["xz", "gz", "bz2"])
def test_files_of_a_package(tmp_path, compression):
    path = tmp_path / "a.deb"
    path.write_bytes(package_of({"usr/a.txt": "eins", "usr/b.txt": "zwei"}, compression))
    assert list(deb.files(path, lambda name: name.endswith("b.txt"))) == [("usr/b.txt", b"zwei")]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"PK\x03\x04", "is no Debian package"),
        (ar_of({"debian-binary": b"2.0\n"}), "has no member data.tar"),
        (ar_of({"debian-binary": b"2.0\n"}) + b"rubbish", "no ar member at byte 72"),
        (ar_of({"data.tar.xz": b"no archive"}), "cannot be read"),
        (package_of({"a": "b" * 9000})[:-40], "is cut short: an ar member ends at byte"),
    ],
)
def test_damaged_packages_are_refused(tmp_path, content, message):
    path = tmp_path / "a.deb"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        list(deb.files(path, lambda name: True))


def test_mirrors_are_those_of_apt_unless_one_is_named(tmp_path, monkeypatch):
    monkeypatch.delenv(debian.MIRROR_VARIABLE, raising=False)
    monkeypatch.setattr(debian, "APT_FOLDER", tmp_path)
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / "sources.list").write_text(
        "# deb http://old.example/debian x main\ndeb [arch=amd64] http://a.example/debian bookworm main\n"
        "deb-src http://src.example/debian bookworm main\ndeb cdrom:[Debian] bookworm main\n"
    )
    (tmp_path / "sources.list.d/debian.sources").write_text(
        "Types: deb\nURIs: http://b.example/debian https://c.example\nSuites: bookworm\n\n"
        "Types: deb\nURIs: http://a.example/debian\n"
    )
    (tmp_path / "sources.list.d/old.save").write_text("deb http://d.example bookworm main\n")
    assert debian.mirrors() == ["http://a.example/debian", "http://b.example/debian", "https://c.example"]
    monkeypatch.setenv(debian.MIRROR_VARIABLE, "file:///srv/debian")
    assert debian.mirrors() == ["file:///srv/debian"]


def test_a_package_is_taken_from_the_mirror_that_lists_it(mirror, tmp_path, monkeypatch):
    other = write_mirror(tmp_path / "other", {"something": b"else"})
    sources = [f"file://{tmp_path}/nowhere", other, f"file://{mirror}/"]
    monkeypatch.setattr(debian, "mirrors", lambda: sources)
    path = debian.fetch_package("libreoffice-help-de", "bookworm", tmp_path / "downloads")
    assert path == tmp_path / "downloads/libreoffice-help-de_7.4.7-1_all.deb"
    assert path.read_bytes() == help_package("de")
    with pytest.raises(
        DataError, match=r"no Debian mirror in .* has nothing of bookworm; TIMETRIAL_DEBIAN_MIRROR"
    ):
        debian.fetch_package("nothing", "bookworm", tmp_path / "downloads")


def test_a_package_that_is_not_what_the_index_states_is_refused(mirror, tmp_path):
    (mirror / "pool/main/libreoffice-help-de_7.4.7-1_all.deb").write_bytes(b"other")
    with pytest.raises(DataError, match="has sha256"):
        debian.fetch_package("libreoffice-help-de", "bookworm", tmp_path)
