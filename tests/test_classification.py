"""The study of classification: on small files in TREC's form, what it records and concludes."""

import runpy
from pathlib import Path

import numpy as np
import pytest

from gradflow import study
from gradflow.data.trec import CLASSES
from gradflow.interop import read_description

FILE = Path(__file__).parents[1] / "experiments" / "classification.py"
MODULE = runpy.run_path(str(FILE))
EXPERIMENT, CONFIG = MODULE["EXPERIMENT"], MODULE["Config"]
WORDS = ("short", "explain", "thing", "person", "place", "many")
MODELS = "rnn,bi_gru(pooling='max'),conv"


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """Questions whose class is said by one word, in TREC's files."""
    folder, draw = tmp_path_factory.mktemp("trec"), np.random.default_rng(0)
    for name, count in (("train_5500.label", 120), ("TREC_10.label", 48)):
        lines = []
        for number in range(count):
            kind = number % len(CLASSES)
            filler = [f"w{i}" for i in draw.integers(0, 9, draw.integers(4, 7))]
            lines.append(f"{CLASSES[kind]}:x {WORDS[kind]} {' '.join(filler)} ?\n")
        (folder / name).write_text("".join(lines))
    return folder


@pytest.fixture(scope="module")
def folders(data_dir, tmp_path_factory):
    folder = tmp_path_factory.mktemp("classification")
    flags = ["--quick", f"--models={MODELS}", f"--data_dir={data_dir}", "--max_length=9"]
    flags += ["--optimiser=adam(learning_rate=0.03)", "--num_epochs=8", "--patience=8"]
    flags += ["--batch_size=8", "--dropout=0.1"]
    for name in ("one", "two"):
        assert study.main(EXPERIMENT, [*flags, f"--workdir={folder / name}"]) == 0
    return folder / "one", folder / "two"


@pytest.fixture(scope="module")
def dataset(folders):
    return study.read_dataset(folders[0] / "result.nc")


def test_the_same_command_gives_the_same_bits(folders):
    one, two = ((folder / "result.nc").read_bytes() for folder in folders)
    assert one == two
    assert (folders[0] / "figure.png").stat().st_size > 10_000


def test_nets_learn_what_a_word_says(dataset):
    share = MODULE["correct"](dataset).mean("example")
    assert float(share.sel(model="bi_gru(pooling='max')").min()) > 0.8
    np.testing.assert_array_equal(dataset.label, np.tile(np.arange(6), 8))
    assert dataset.attrs["learnt"] == 120 - 12


def test_the_cells_are_there_to_be_measured(folders):
    found = {read_description(path) for path in (folders[0] / "params").glob("*.safetensors")}
    assert found == {("rnn", 8, 6), ("gru", 8, 6)}


def test_the_flow_is_that_of_cells_alone(dataset):
    curves = dataset.log_norm
    assert bool(curves.sel(model="conv").isnull().all())
    assert bool(np.isfinite(curves.sel(model="rnn")).all())
    change = curves.sel(model="rnn", when="trained") - curves.sel(model="rnn", when="at birth")
    assert float(abs(change).isel(lag=-1).max()) > 1e-3


def test_confusions_lengths_and_horizons_are_counted(dataset):
    said = (dataset.label + 1) % 6
    wrong = dataset.assign(predicted=dataset.predicted * 0 + said.astype(np.int16))
    shares = MODULE["confusions"](wrong, "rnn")
    np.testing.assert_array_equal(shares, np.roll(np.eye(6), 1, axis=1))
    bins = MODULE["length_bins"](dataset)
    assert sorted(np.concatenate(bins)) == list(range(48))
    lengths = [dataset.length.values[part] for part in bins]
    assert all(a.max() < b.min() for a, b in zip(lengths, lengths[1:], strict=False))
    falling = dataset.log_norm.sel(model="rnn", when="trained") * 0 - 1.0 * dataset.lag
    np.testing.assert_array_equal(MODULE["horizons"](falling), 7)  # log 1000 is 6.9


def test_the_verdict_is_read_from_the_numbers(dataset):
    two = dataset.sel(model=["rnn", "bi_gru(pooling='max')"]).assign_coords(model=["rnn", "gru"])

    def closing(right, rates):
        held = (
            two.predicted.dims,
            np.where(
                (np.arange(48) < np.reshape(right, (2, 2, 1))), two.label, (two.label + 1) % 6
            ),
        )
        fall = np.reshape(rates, (2, 1, 1, 1, 1)) * two.lag.values
        log_norm = two.log_norm.fillna(0).transpose("model", "seed", "when", "sequence", "lag")
        changed = two.assign(predicted=held, log_norm=log_norm * 0 - fall)
        return EXPERIMENT.closing(changed)

    good = closing([10, 12, 30, 24], [2, 1])
    assert "gru: supported (+0.333" in good
    assert "rnn loses and gru keeps: 14 " in good and "gru loses and rnn keeps: 0;" in good
    assert "gru: not supported" in closing([10, 12, 30, 24], [1, 2])
    assert "gru: not supported" in closing([10, 30, 12, 24], [2, 1])
    alone = EXPERIMENT.closing(dataset.sel(model=["conv"]))
    assert "not measured, which takes rnn, and lstm or gru" in alone


def test_what_is_given_goes_before_what_the_corpus_has():
    assert CONFIG().setting.num_epochs == 12
    assert CONFIG(num_epochs=2, max_words=9).setting[1::3] == (9, 2)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "'train_5500.label' is expected, got none: fetch .*cogcomp.seas.upenn.edu"),
        ({"data": "imdb"}, "aclImdb_v1.tar.gz is expected, got none: .*stanford"),
        ({"data": "ag_news", "data_dir": "none"}, "'train.csv' is expected .*mhjabreel"),
        ({"train_file": "a.csv"}, "--train_file is for --data=ag_news alone, got --data=trec"),
        ({"models": ","}, "the name of a model is expected, got ','; try gru"),
    ],
)
def test_what_cannot_be_run_is_said(given, message):
    with pytest.raises(ValueError, match=message):
        EXPERIMENT.run(EXPERIMENT.resolve(given, quick=True), study.call)
