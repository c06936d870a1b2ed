"""Parallel text: read from files and archives as they are distributed, refused where malformed, and converted."""

import gzip
import io
import tarfile
from itertools import islice

import numpy as np
import pytest

from timetrial.data_loading import subword_tokenizer, wmt
from timetrial.data_loading.parallel_text import Text, find_texts, line_pairs, segment_pairs
from timetrial.data_loading.wmt import CORPORA, Layout
from timetrial.engine.errors import DataError
from timetrial.engine.facts import Order

GERMAN = ("der", "Hund", "läuft", "Straße", "schön", "über", "und", "Katze", "ruft")
ENGLISH = ("the", "dog", "runs", "street", "nice", "over", "and", "cat", "calls")
PAIRS_OF = {"europarl": 50, "commoncrawl": 40, "news_commentary": 9, "rapid": 21}
LAYOUT = Layout(
    train=sum(PAIRS_OF.values()), validation=5, test=6, num_tokens=45, pairs_per_shard=15, sampled_pairs=200
)


def made_pairs(count, seed):
    """Word for word translations, each different."""
    draw = np.random.default_rng(seed)
    pairs = []
    for number in range(count):
        words = draw.integers(0, len(GERMAN), draw.integers(2, 9))
        pairs.append(
            tuple(" ".join([language[i] for i in words] + [str(number)]) for language in (GERMAN, ENGLISH))
        )
    return pairs


def sgml(sentences, kind):
    """Two documents, numbered anew in each, as the workshops' tests are written."""
    half = len(sentences) // 2
    lines = [f'<{kind}set setid="newstest2014" srclang="any">']
    for name, part in (("bbc-1", sentences[:half]), ("spiegel-2", sentences[half:])):
        lines += [f'<doc sysid="ref" docid="{name}" genre="news" origlang="de">', "<p>"]
        lines += [f'<seg id="{i}">{sentence}</seg>' for i, sentence in enumerate(part, start=1)]
        lines += ["</p>", "</doc>"]
    return "\n".join([*lines, f"</{kind}set>", ""])


def texts_of():
    """What the owner's files hold, by name."""
    texts = {}
    pairs = {}
    for seed, (corpus, names) in enumerate(CORPORA.items()):
        pairs[corpus] = made_pairs(PAIRS_OF[corpus], seed)
        for side, name in enumerate(names):
            texts[name] = "".join(f"{pair[side]}\n" for pair in pairs[corpus])
    pairs["validation"], pairs["test"] = made_pairs(5, 10), made_pairs(6, 11)
    for side, kind in enumerate(("src", "ref")):
        texts[wmt.VALIDATION[side]] = "".join(f"{pair[side]}\n" for pair in pairs["validation"])
        texts[wmt.TEST[side]] = sgml([pair[side] for pair in pairs["test"]], kind)
    return texts, pairs


TEXTS, PAIRS = texts_of()


def write_archive(path, contents):
    with tarfile.open(path, "w:gz") as tar:
        for name, content in contents.items():
            member = tarfile.TarInfo(name)
            member.size = len(content.encode())
            tar.addfile(member, io.BytesIO(content.encode()))


def write_source(folder, texts=TEXTS):
    """The texts in the forms in which they are distributed: archives, compressed and plain."""
    folder.mkdir()
    archives = {
        "training-parallel-europarl-v7.tgz": ("training/", "europarl"),
        "dev.tgz": ("dev/", "newstest"),
    }
    rest = dict(texts)
    for archive, (inside, prefix) in archives.items():
        chosen = {inside + name: text for name, text in texts.items() if name.startswith(prefix)}
        write_archive(folder / archive, {"README": "", **chosen})
        rest = {name: text for name, text in rest.items() if not name.startswith(prefix)}
    for name, text in rest.items():
        if name.startswith("rapid"):
            (folder / f"{name}.gz").write_bytes(gzip.compress(text.encode()))
        else:
            (folder / "unpacked").mkdir(exist_ok=True)
            (folder / "unpacked" / name).write_text(text, newline="")
    return folder


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wmt")
    wmt.prepare(folder / "data", write_source(folder / "source"), LAYOUT)
    return folder / "data"


def decoded(batches, tokenizer):
    """The pairs of evaluation batches, as text, without the rows that fill up the last one."""
    pairs = []
    for batch in batches:
        counts = batch["weights"].sum(axis=1)
        for row in np.flatnonzero(counts):
            sides = [[token for token in batch[key][row].tolist() if token] for key in ("inputs", "targets")]
            pairs.append(tuple(tokenizer.decode(sides)))
    return pairs


@pytest.mark.parametrize("split", ["validation", "test"])
def test_held_out_splits_are_the_files_in_order(prepared, split):
    batches = list(wmt.evaluation_batches(prepared, split, 4))
    assert {batch["targets"].shape for batch in batches} == {(4, 256)}
    assert decoded(batches, wmt.load_tokenizer(prepared)) == PAIRS[split]


def test_training_text_is_all_corpora(prepared):
    everything = wmt.evaluation_batches(prepared, "eval_train", 50, num_eval_train=LAYOUT.train)
    expected = [pair for corpus in CORPORA for pair in PAIRS[corpus]]
    assert sorted(decoded(everything, wmt.load_tokenizer(prepared))) == sorted(expected)
    some = wmt.evaluation_batches(prepared, "eval_train", 50, num_eval_train=7)
    assert len(decoded(some, wmt.load_tokenizer(prepared))) == 7


def test_training_batches_are_packed_rows_of_both_languages(prepared):
    tokenizer = wmt.load_tokenizer(prepared)
    german = dict(pair for corpus in CORPORA for pair in PAIRS[corpus])
    for batch in islice(wmt.training_batches(prepared, Order(batch_size=2, seed=0)), 6):
        assert batch["inputs"].shape == (2, 256)
        assert batch["targets_segmentation"].max() > 5
        for row in range(2):
            for segment in range(1, batch["targets_segmentation"][row].max() + 1):
                source, target = tokenizer.decode(
                    [
                        batch[key][row][batch[f"{key}_segmentation"][row] == segment]
                        for key in ("inputs", "targets")
                    ]
                )
                assert german[source] == target


def test_the_vocabulary_is_learnt_from_the_sampled_sentences(prepared, tmp_path):
    texts = find_texts(
        write_source(tmp_path / "source"), [name for names in CORPORA.values() for name in names]
    )
    corpora = [(texts[german], texts[english]) for german, english in CORPORA.values()]
    sentences = wmt.sampled_sentences(corpora, LAYOUT)
    pairs = list(zip(sentences[::2], sentences[1::2], strict=True))
    expected = [pair for corpus in CORPORA for pair in PAIRS[corpus]]
    assert sorted(pairs) == sorted(expected)  # all, for more are sampled than there are
    assert pairs != expected  # not one corpus after another
    model = subword_tokenizer.stored(subword_tokenizer.train(sentences, LAYOUT.num_tokens))
    found = np.load(prepared / "evaluation" / "wmt" / "tokenizer.model.npy")
    np.testing.assert_array_equal(found, model)


def test_pairs_with_an_empty_side_and_too_long_ones_are_left_out(tmp_path):
    pairs = [
        ("eins", "one"),
        ("", "two"),
        ("drei", ""),
        (" ", "four"),
        ("fünf " * 300, "five"),
        ("sechs", "six"),
    ]
    both = []
    for side, language in enumerate(("de", "en")):
        both.append(Text(file=tmp_path / language))
        both[side].file.write_text("".join(f"{pair[side]}\n" for pair in pairs))
    model = subword_tokenizer.train(["eins drei fünf sechs", "one two three four five six"] * 20, 26)
    shards = dict(wmt.convert_corpus("some", tuple(both), Layout(pairs_per_shard=2), model, frozenset()))
    assert [len(shard["lengths"]) for shard in shards.values()] == [2, 1]  # the fifth is too long
    resumed = dict(
        wmt.convert_corpus("some", tuple(both), Layout(pairs_per_shard=2), model, frozenset(["some_00"]))
    )
    assert resumed.keys() == {"some_01"}
    np.testing.assert_array_equal(resumed["some_01"]["tokens"], shards["some_01"]["tokens"])


def spoiled(name, change):
    return {**TEXTS, name: change(TEXTS[name])}


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (
            {name: text for name, text in TEXTS.items() if name != "rapid2016.de-en.en"},
            "lack rapid2016.de-en.en",
        ),
        (
            spoiled("commoncrawl.de-en.en", lambda text: text.partition("\n")[2]),
            r"commoncrawl.de-en.en ends after 39 lines, \S+commoncrawl.de-en.de does not",
        ),
        (
            spoiled("commoncrawl.de-en.de", lambda text: text.partition("\n")[2]),
            r"commoncrawl.de-en.de ends after 39 lines, \S+commoncrawl.de-en.en does not",
        ),
        (
            spoiled("rapid2016.de-en.de", lambda text: "\n" + text.partition("\n")[2]),
            "have 119 pairs of sentences, not 120",
        ),
        (
            spoiled(wmt.VALIDATION[0], lambda text: "\n" + text.partition("\n")[2]),
            r"newstest2013.de in \S+dev.tgz has 4 sentences with a translation, not 5",
        ),
        (
            spoiled(wmt.TEST[1], lambda text: text.replace('<seg id="2">', '<seg id="4">', 1)),
            r"line 5 of dev/newstest2014-deen-src.de.sgm in \S+ is segment 2 of document bbc-1, line 5 of \S+ in "
            r"\S+ segment 4 of bbc-1",
        ),
        (
            spoiled(wmt.TEST[0], lambda text: text.replace("</seg>", "", 1)),
            'line 4 of dev/newstest2014-deen-src.de.sgm in .* should be <seg id="N">SENTENCE</seg>',
        ),
    ],
)
def test_malformed_sources_are_refused(tmp_path, texts, message):
    with pytest.raises(DataError, match=message):
        wmt.prepare(tmp_path / "data", write_source(tmp_path / "source", texts), LAYOUT)


def test_no_source_is_an_error_that_says_what_it_must_hold(tmp_path):
    with pytest.raises(DataError, match=r"training-parallel-europarl-v7.tgz.* newstest2014-deen-ref.en.sgm"):
        wmt.prepare(tmp_path)
    with pytest.raises(DataError, match="is no folder"):
        wmt.prepare(tmp_path, tmp_path / "nowhere", LAYOUT)


def test_lines_end_in_a_line_feed_alone(tmp_path):
    sentences = ["one\u2028still one", "two\rstill two", "three\x85", "", "last without an end"]
    for name in ("a", "b"):
        (tmp_path / name).write_bytes("\n".join(sentences).encode())
    texts = find_texts(tmp_path, ["a", "b"])
    assert list(line_pairs(texts["a"], texts["b"])) == [(line, line) for line in sentences]


def test_a_sentence_of_a_test_is_kept_as_written(tmp_path):
    for name in ("a.sgm", "b.sgm"):
        (tmp_path / name).write_text('<DOC docid="x">\n<seg id="1"> Tom &amp; <i>Jerry</i> </seg>\n')
    texts = find_texts(tmp_path, ["a.sgm", "b.sgm"])
    assert list(segment_pairs(texts["a.sgm"], texts["b.sgm"])) == [(" Tom &amp; <i>Jerry</i> ",) * 2]


def test_segments_that_one_side_lacks_are_an_error(tmp_path):
    (tmp_path / "a.sgm").write_text(sgml(["eins", "zwei", "drei"], "src"))
    (tmp_path / "b.sgm").write_text(
        sgml(["one", "two", "three"], "ref").replace('<seg id="2">three</seg>', "")
    )
    a, b = (Text(file=tmp_path / name) for name in ("a.sgm", "b.sgm"))
    with pytest.raises(
        DataError, match=r"line 10 of \S+a.sgm is segment 2 of document spiegel-2, but \S+b.sgm has no"
    ):
        list(segment_pairs(a, b))
    with pytest.raises(
        DataError, match=r"line 10 of \S+a.sgm is segment 2 of document spiegel-2, \S+b.sgm has none"
    ):
        list(segment_pairs(b, a))


def test_damage_is_named_with_its_line(tmp_path):
    (tmp_path / "latin").write_bytes("eins\nfünf\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"line 2 of \S+latin is no UTF-8"):
        list(Text(file=tmp_path / "latin").lines())
    whole = gzip.compress(np.random.default_rng(0).bytes(3000).hex().encode())
    (tmp_path / "cut.gz").write_bytes(whole[:-200])
    with pytest.raises(DataError, match=r"cut.gz cannot be read beyond line 0"):
        list(Text(file=tmp_path / "cut.gz").lines())
    (tmp_path / "dev.tgz").write_bytes(whole[:-200])
    with pytest.raises(DataError, match=r"dev.tgz is no whole tar archive"):
        find_texts(tmp_path, ["newstest2013.de"])
