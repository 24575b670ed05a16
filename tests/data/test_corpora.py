"""Readers of labelled texts: small files of each official format, and malformed files."""

import gzip
import io
import tarfile

import numpy as np
import pytest

from gradflow.data.ag_news import read_ag_news
from gradflow.data.corpus import make_corpus
from gradflow.data.files import official_file, opened
from gradflow.data.imdb import read_imdb
from gradflow.data.texts import Texts
from gradflow.data.trec import CLASSES, read_trec

TREC = "".join(f"{name}:fine Was {name} ?\n" for name in CLASSES)
REVIEWS = {
    "train/pos/0_9.txt": "Good.<br />Très good.",
    "train/pos/10_8.txt": "Ten.",
    "train/pos/2_8.txt": "Two.",
    "train/neg/0_1.txt": "Bad.",
    "test/neg/0_2.txt": "Worse.",
    "test/pos/0_10.txt": "Best.",
}


def written(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path.parent


def archive(reviews):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as file:
        for name, text in {"README": "about", "train/unsup/0_0.txt": "x", **reviews}.items():
            data = text if isinstance(text, bytes) else text.encode()
            member = tarfile.TarInfo(f"aclImdb/{name}")
            member.size = len(data)
            file.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def test_official_file_of_another_size_raises(tmp_path):
    folder = written(tmp_path / "a.bin", b"abc")
    find = lambda **known: official_file(folder, "a.bin", source="the web", **known)  # noqa: E731
    assert find(size=3) == tmp_path / "a.bin"
    with pytest.raises(ValueError, match="Expected 4 bytes in .* got 3. .* again from the web"):
        find(size=4)


def test_corrupt_gzip_file_raises(tmp_path):
    def read():
        with opened(tmp_path / "a.gz", source="the web") as file:
            return file.read()

    whole = gzip.compress(bytes(range(256)) * 9)
    written(tmp_path / "a.gz", whole)
    assert read() == bytes(range(256)) * 9
    for broken in (whole[:-9], whole[:-8] + b"12345678", b"plain"):
        written(tmp_path / "a.gz", broken)
        with pytest.raises(ValueError, match="Expected a gzip file .* corrupt: .* the web"):
            read()


@pytest.mark.parametrize(
    ("read", "name", "source"),
    [
        (read_trec, "train_5500.label", "cogcomp.seas.upenn.edu"),
        (read_ag_news, "train.csv", "github.com/mhjabreel/CharCNN"),
        (read_imdb, "aclImdb_v1.tar.gz", "ai.stanford.edu/~amaas"),
    ],
)
def test_missing_file_raises_with_its_source(tmp_path, read, name, source):
    with pytest.raises(ValueError, match=f"'{name}' in .* without it. Download .*{source}"):
        read(tmp_path, "train")
    with pytest.raises(ValueError, match=f"'{name}' in .* no such folder. .*{source}"):
        read(tmp_path / "none", "train")
    with pytest.raises(ValueError, match=f"a folder with .*{name}.* got none. .*{source}"):
        read(None, "train")
    with pytest.raises(ValueError, match="'train' or 'test', got 'dev'"):
        read(tmp_path, "dev")


def test_trec_is_read_with_its_coarse_classes(tmp_path):
    # str.splitlines takes 0x85 (NEL in latin-1) for the end of a line.
    written(tmp_path / "train_5500.label", TREC.encode() + b"HUM:ind Who\x85 is Ren\xe9 ?\n")
    found = read_trec(tmp_path, "train")
    assert found.texts[0] == "Was ABBR ?" and found.texts[-1] == "Who\x85 is René ?"
    assert found.classes == CLASSES
    np.testing.assert_array_equal(found.labels, [0, 1, 2, 3, 4, 5, 3])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (TREC + "HUM Who ?\n", "Expected 'COARSE:fine question' in line 7 .* got 'HUM Who"),
        (TREC.replace("NUM", "HUM"), "texts of every class .* got none of NUM. Download the"),
        (TREC.replace("NUM:", "SUM:"), "Expected one of the classes ABBR, .* got 'SUM' at text 6"),
        (TREC + "HUM:ind  \n", "Expected a text for each class label, got a blank one at text 7"),
    ],
)
def test_malformed_trec_file_raises(tmp_path, content, message):
    written(tmp_path / "TREC_10.label", content)
    with pytest.raises(ValueError, match=message):
        read_trec(tmp_path, "test")


OFFICIAL = '"1","T, one","D\\one"\n"2","A ""b""","c"\n"3","x","y"\n"4","z","w"\n'
SUBSET = "label,content\n1,one\n2,two\n3,three\n4,four\n"


def test_ag_news_is_read_in_both_forms(tmp_path):
    written(tmp_path / "train.csv", OFFICIAL)
    written(tmp_path / "subset.csv", SUBSET)
    official = read_ag_news(tmp_path, "train")
    assert official.texts == ("T, one D one", 'A "b" c', "x y", "z w")
    assert official.classes[3] == "Sci/Tech"
    assert read_ag_news(tmp_path, "train", titles=False).texts == ("D one", "c", "y", "w")
    subset = read_ag_news(tmp_path, "train", name="subset.csv")
    assert subset.texts == ("one", "two", "three", "four")
    np.testing.assert_array_equal(official.labels, subset.labels)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (OFFICIAL + '"1","no description"\n', "the 3 columns class, title, .* in row 5 .* got 2"),
        (SUBSET + "1,a,b\n", "the 2 columns label, content in row 6 .* got 3"),
        (OFFICIAL + '"5","a","b"\n', "one of the classes World, .* got '5' at text 5"),
        (OFFICIAL + '"1","a', "Expected a CSV file .* cannot be read as CSV"),
        (
            OFFICIAL.encode() + b'"1","a","\xff"\n',
            "Expected UTF-8 text in .* got the byte 0xff at ",
        ),
        (OFFICIAL.replace('"4"', '"3"'), "texts of every class .* got none of Sci/Tech"),
    ],
)
def test_malformed_ag_news_file_raises(tmp_path, content, message):
    written(tmp_path / "test.csv", content)
    with pytest.raises(ValueError, match=message):
        read_ag_news(tmp_path, "test")


def test_imdb_archive_and_folder_give_the_same_texts(tmp_path):
    written(tmp_path / "packed" / "aclImdb_v1.tar.gz", archive(REVIEWS))
    for name, text in REVIEWS.items():
        written(tmp_path / "folder" / "aclImdb" / name, text)
    packed = read_imdb(tmp_path / "packed", "train")
    assert packed.texts == ("Bad.", "Good. Très good.", "Two.", "Ten.")
    np.testing.assert_array_equal(packed.labels, [0, 1, 1, 1])
    for place in ("folder", "folder/aclImdb"):
        found = read_imdb(tmp_path / place, "train")
        assert found.texts == packed.texts
        np.testing.assert_array_equal(found.labels, packed.labels)
    assert read_imdb(tmp_path / "packed", "test").texts == ("Worse.", "Best.")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (archive(REVIEWS)[:-60], "Expected a tar archive under gzip at .* corrupt: .*amaas"),
        (b"no archive", "Expected a tar archive under gzip"),
        (archive({"train/neg/0_1.txt": "Bad."}), "texts of every class .* got none of pos"),
        (
            archive({"train/neg/0_1.txt": b"\xe9t\xe9"}),
            "Expected UTF-8 text in .* got the byte 0xe9 at 0",
        ),
    ],
)
def test_malformed_imdb_archive_raises(tmp_path, content, message):
    written(tmp_path / "aclImdb_v1.tar.gz", content)
    with pytest.raises(ValueError, match=message):
        read_imdb(tmp_path, "train")


def texts_of(*texts):
    return Texts(texts, np.arange(len(texts), dtype=np.int32) % 2, ("a", "b"))


def test_vocabulary_comes_from_the_training_texts_only():
    names = [f"word{i} the end" for i in range(20)]
    train, test = texts_of(*names, "same text"), texts_of("same text", "the end")
    corpus = make_corpus(train, test, seed=0, max_length=2, max_words=50)
    assert [len(part.labels) for part in corpus[:3]] == [18, 2, 2]
    assert corpus.num_words == 2 + 18 + 2
    assert all(sequence[0] == 1 and len(sequence) == 2 for sequence in corpus.validation.sequences)
    assert corpus.test.sequences[0].tolist() == [1, 1]
    again = make_corpus(train, test, seed=0, max_length=2, max_words=50)
    other = make_corpus(train, test, seed=1, max_length=2, max_words=50, keep="end")
    for one, two in zip(corpus.training.sequences, again.training.sequences, strict=True):
        np.testing.assert_array_equal(one, two)
    assert not np.array_equal(corpus.training.labels, other.training.labels)
    assert all(sequence.min() > 1 for sequence in other.validation.sequences)


@pytest.mark.parametrize(
    ("train", "share", "message"),
    [
        (
            texts_of("a", "b")._replace(classes=("a", "c")),
            0.1,
            "Expected equal classes .* 'c'.* 'b'",
        ),
        (texts_of("a", "b"), 1.0, "Expected validation_fraction between 0 and 1, got 1.0"),
        (
            texts_of("x", "y", "z"),
            0.1,
            "two training texts that are not in the test set, got 1 of 3",
        ),
    ],
)
def test_bad_arguments_of_a_corpus_raise(train, share, message):
    with pytest.raises(ValueError, match=message):
        make_corpus(
            train, texts_of("x", "y"), seed=0, validation_fraction=share, max_length=3, max_words=9
        )


def test_an_archive_that_is_too_large_once_decompressed_raises(tmp_path, monkeypatch):
    monkeypatch.setattr("gradflow.data.imdb.MAX_BYTES", 1 << 20)
    whole = archive(REVIEWS | {"train/unsup/1_0.txt": "x" * (2 << 20)})
    written(tmp_path / "aclImdb_v1.tar.gz", whole)
    with pytest.raises(ValueError, match="Expected a tar .*: more than 1048576 bytes once decomp"):
        read_imdb(tmp_path, "train")
