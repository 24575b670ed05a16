"""The study of classification: on small files in TREC's form, what it records and concludes."""

import dataclasses
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from studies import load_part, verdicts

from gradflow import study, unroll
from gradflow.data.corpus import Part
from gradflow.data.trec import CLASSES
from gradflow.interop import read_description, read_params

MODULE, PARTS = load_part("classification.study"), load_part("classification.trainer")
RESULTS = load_part("classification.results")
PROBING = load_part("classification.probing")
EXPERIMENT, CONFIG = MODULE.EXPERIMENT, MODULE.Config
resolve_net = load_part("classification.nets").resolve_net
text_classifier = load_part("classification.text").text_classifier
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
def fits():
    """What each training of the run that is probed came to, by its model and seed."""
    return {}


@pytest.fixture(scope="module")
def folders(data_dir, fits, tmp_path_factory):
    """A run that is probed, and the same without."""
    folder = tmp_path_factory.mktemp("classification")
    flags = ["--quick", f"--models={MODELS}", f"--data_dir={data_dir}", "--max_length=9"]
    flags += ["--optimiser=adam(learning_rate=0.03)", "--num_epochs=8", "--patience=8"]
    flags += ["--batch_size=8", "--dropout=0.1"]
    fit = PARTS.Trainer.fit

    def kept(self, seed, place):
        fits[self.net.cell_spec, seed] = self, fit(self, seed, place)
        return fits[self.net.cell_spec, seed][1]

    probe = ["--probe=gates,log_norms,adjoints"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PARTS.Trainer, "fit", kept)
        assert study.main(EXPERIMENT, [*flags, *probe, f"--workdir={folder}/probed"]) == 0
    assert study.main(EXPERIMENT, [*flags, f"--workdir={folder}/plain"]) == 0
    return folder / "probed", folder / "plain"


@pytest.fixture(scope="module")
def folder(folders):
    return folders[0]


def test_the_same_seeds_give_the_same_bits_probed_or_not(folders, dataset):
    plain = study.read_dataset(folders[1] / "result.nc")
    assert set(dataset) - set(plain) == {"gates", "log_norms", "adjoints"}
    assert plain.equals(dataset[list(plain)].drop_vars(["probe_epoch", "gate"], errors="ignore"))
    assert (folders[0] / "figure.png").stat().st_size > 10_000


def test_probes_measure_the_saved_cell_on_whole_texts(folders, dataset, fits):
    """By automatic differentiation of a plain loop, with a change added to each h."""
    (trainer, done), (model,) = fits["gru", 0], [m for m in dataset.model.values if "gru" in m]
    cell, (sequences, labels) = trainer.net.cell, trainer.corpus.validation
    saved = read_params(
        folders[0] / "params" / "bi_gru_pooling=_max.safetensors",
        jax.eval_shape(cell.init, jax.random.key(0)),
    )
    best = done.state.best_params["layers"][0]["forward"]
    jax.tree.map(np.testing.assert_array_equal, saved, jax.tree.map(np.asarray, best))

    def through(changes, params, words, label):
        """h_L, the loss, and the gates of the forward cell at each step."""
        x, both = params["embedding"][words], params["layers"][0]
        h, ahead, gates = changes[0], [], []
        for k, word in enumerate(x):
            gates.append(cell.gates(both["forward"], h, word))
            h = cell.step(both["forward"], h, word)[0] + changes[k + 1]
            ahead.append(h)
        back = [cell.initial_carry()]
        for word in x[::-1]:
            back.append(cell.step(both["backward"], back[-1], word)[0])
        units = jnp.concatenate([jnp.stack(ahead), jnp.stack(back[:0:-1])], axis=1).max(axis=0)
        scores = params["head"]["W"] @ units + params["head"]["b"]
        return (h, jax.nn.logsumexp(scores) - scores[label]), gates

    lengths = [len(words) for words in sequences]
    length = max(n for n in lengths if lengths.count(n) > 1)
    rows = [row for row, n in enumerate(lengths) if n == length][:2]
    jacobian = jax.jit(jax.jacrev(through, has_aux=True))
    probed = dataset.sel(model=model).isel(seed=0)
    for epoch, params in (
        (done.state.best_epoch, done.state.best_params),
        (done.update, done.state.params),
    ):
        params = jax.tree.map(lambda leaf: np.asarray(leaf, float), params)
        found = [jacobian(np.zeros((length + 1, 6)), params, sequences[r], labels[r]) for r in rows]
        norms = [np.linalg.norm(J, ord=2, axis=(0, 2)) for (J, _), _ in found]
        adjoints = [np.linalg.norm(g, axis=-1) for (_, g), _ in found]
        z = np.array([[step["z"] for step in gates] for _, gates in found])
        at = probed.sel(probe_epoch=epoch)
        for name, values in (("log_norms", norms), ("adjoints", adjoints)):
            with np.errstate(divide="ignore"):  # where no unit is largest at a step of both
                expected = np.log(values).mean(axis=0)
            np.testing.assert_allclose(at[name], expected, rtol=1e-8, atol=1e-12)
        share = ((z < 0.1) | (z > 0.9)).mean(axis=(0, 2))
        np.testing.assert_allclose(at.gates.sel(gate="z")[1:], share, atol=1e-12)
        assert np.isnan(at.gates[:, 0]).all()
    assert dataset.probe_epoch.values.tolist() == list(range(9))
    assert bool(dataset.gates.sel(model="rnn").isnull().all())
    assert bool(dataset.log_norms.sel(model="conv").isnull().all())


@pytest.mark.parametrize(
    "spec", ["gru", "lstm(pooling='max')", "two_rnn(pooling='mean')", "bi_rnn", "two_gru"]
)
def test_the_probed_loss_is_that_of_the_network_without_padding(spec):
    net = resolve_net(spec, 3, 2)
    model = text_classifier(net.layers, num_symbols=5, embedding_size=3, num_classes=4)
    params = model.init(jax.random.key(0))
    params["embedding"] = 10 * params["embedding"]
    ids = np.array([[1, 4], [2, 3], [3, 2], [4, 0], [0, 0]])
    scores = jax.jit(model.apply)(params, ids, lengths=np.array([4, 3]))
    whole = PROBING.WholeText(net)

    @jax.jit
    def loss(words):
        subject = whole(params, (words, 2))
        return subject.loss(unroll(subject.cell, subject.params, subject.inputs).outputs)

    expected = -jax.nn.log_softmax(scores)[:, 2]
    np.testing.assert_allclose([loss(ids[:4, 0]), loss(ids[:3, 1])], expected, rtol=1e-9)


def test_probed_texts_are_whole_and_of_one_length():
    texts = [np.full(n, n) for n in (2, 3, 3, 5, 3, 2, 2)]
    words, labels = PROBING.alike(Part(texts, np.arange(7)), 2)
    assert words.tolist() == [[3] * 3] * 2 and labels.tolist() == [1, 2]
    assert PROBING.alike(Part(texts, np.arange(7)), 1)[0].tolist() == [[5] * 5]
    assert PROBING.alike(Part(texts, np.arange(7)), 9)[1].tolist() == [1, 2, 4]


@pytest.mark.usefixtures("folders")
def test_probe_every_counts_epochs(fits):
    trainer, _ = fits["gru", 0]
    config = dataclasses.replace(trainer.config, probe_every=3)
    seldom = PARTS.Trainer(config, trainer.net, trainer.corpus)
    assert seldom.schedule.probings.tolist() == [0, 3, 6]


def test_networks_learn_the_word_that_decides_the_class(dataset):
    share = RESULTS.correct(dataset).mean("example")
    assert float(share.sel(model="bi_gru(pooling='max')").min()) > 0.8
    np.testing.assert_array_equal(dataset.label, np.tile(np.arange(6), 8))
    assert dataset.attrs["learnt"] == 120 - 12


def test_the_trained_cells_are_saved(folders):
    found = {read_description(path) for path in (folders[0] / "params").glob("*.safetensors")}
    assert found == {("rnn", 8, 6), ("gru", 8, 6)}


def test_only_recurrent_models_have_a_flow(dataset):
    curves = dataset.log_norm
    assert bool(curves.sel(model="conv").isnull().all())
    assert bool(np.isfinite(curves.sel(model="rnn")).all())
    change = curves.sel(model="rnn", when="trained") - curves.sel(
        model="rnn", when="at initialisation"
    )
    assert float(abs(change).isel(lag=-1).max()) > 1e-3


def test_confusions_lengths_and_horizons_are_counted(dataset):
    said = (dataset.label + 1) % 6
    wrong = dataset.assign(predicted=dataset.predicted * 0 + said.astype(np.int16))
    shares = RESULTS.confusions(wrong, "rnn")
    np.testing.assert_array_equal(shares, np.roll(np.eye(6), 1, axis=1))
    bins = RESULTS.length_bins(dataset)
    assert sorted(np.concatenate(bins)) == list(range(48))
    lengths = [dataset.length.values[part] for part in bins]
    assert all(a.max() < b.min() for a, b in zip(lengths, lengths[1:], strict=False))
    falling = dataset.log_norm.sel(model="rnn", when="trained") * 0 - 1.0 * dataset.lag
    np.testing.assert_array_equal(RESULTS.horizons(falling), 7)  # log 1000 is 6.9


def test_the_claims_are_decided_by_the_numbers(dataset):
    two = dataset.sel(model=["rnn", "bi_gru(pooling='max')"]).assign_coords(model=["rnn", "gru"])

    def changed(right, rates):
        """The record as if each model and seed got so many texts right, and decayed so fast."""
        predicted = np.where(
            np.arange(48) < np.reshape(right, (2, 2, 1)), two.label, (two.label + 1) % 6
        )
        fall = np.reshape(rates, (2, 1, 1, 1, 1)) * two.lag.values
        log_norm = two.log_norm.fillna(0).transpose("model", "seed", "when", "sequence", "lag")
        return two.assign(predicted=(two.predicted.dims, predicted), log_norm=log_norm * 0 - fall)

    def found(right, rates):
        better, further = EXPERIMENT.claims(changed(right, rates))
        assert (better.id, further.id) == ("classifies-better-gru", "reaches-further-gru")
        return better.verdict, further.verdict, better.measured[0].value

    yes, no, unknown = "supported", "not supported", "inconclusive"
    assert found([10, 11, 30, 30], [2, 1]) == (yes, yes, 0.4062)
    assert found([30, 30, 10, 11], [1, 2]) == (no, no, -0.4062)
    # Two seeds whose differences are 20 and 12 texts of 48 decide nothing.
    assert found([10, 12, 30, 24], [1, 1])[0] == unknown
    # Neither reaches 1e-3 within the lags measured.
    assert found([10, 30, 12, 24], [0, 0])[:2] == (unknown, unknown)
    summary = EXPERIMENT.summary(changed([10, 11, 30, 30], [2, 1]))
    assert "gru alone gets right: 20 " in summary and "rnn alone: 0;" in summary
    assert verdicts(EXPERIMENT.claims(dataset.sel(model=["conv"]))) == {}


def test_flags_override_the_settings_of_the_corpus():
    assert CONFIG().setting.num_epochs == 12
    assert CONFIG(num_epochs=2, max_words=9).setting[1::3] == (9, 2)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "'train_5500.label', got none. Download .*cogcomp.seas.upenn.edu"),
        ({"data": "imdb"}, "aclImdb_v1.tar.gz, got none. .*stanford"),
        ({"data": "ag_news", "data_dir": "none"}, "'train.csv' in .*mhjabreel"),
        ({"train_file": "a.csv"}, "--train_file applies only to --data=ag_news, got --data=trec"),
        ({"models": ","}, "Expected the name of a model, got ','. Use for example gru"),
        ({"probe": "gate"}, "Unknown probe 'gate'"),
        ({"models": "rnn", "probe": "gates"}, "The probe 'gates' needs a cell with gates"),
        ({"models": "conv", "probe": "gates"}, "Expected a recurrent model for --probe=gates"),
    ],
)
def test_bad_input_is_refused(given, message):
    with pytest.raises(ValueError, match=message):
        EXPERIMENT.run(EXPERIMENT.resolve(given, quick=True), study.call)


def test_a_bad_probe_is_one_line(tmp_path, data_dir, capsys):
    flags = ["--quick", f"--data_dir={data_dir}", "--probe=log_norm", f"--workdir={tmp_path}/out"]
    assert study.main(EXPERIMENT, flags) == 1
    shown = capsys.readouterr().err
    assert "Unknown probe 'log_norm'" in shown and shown.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.slow  # a net of the default size is trained on TREC's files: a minute
def test_a_bidirectional_lstm_classifies_questions():
    if "GRADFLOW_DATA" not in os.environ:
        pytest.skip("GRADFLOW_DATA is to name a folder with TREC's two files in its folder trec")
    folder = str(Path(os.environ["GRADFLOW_DATA"]) / "trec")
    config = EXPERIMENT.resolve({"models": "bi_lstm", "num_seeds": 1, "data_dir": folder})
    with study.precision(config):
        dataset = EXPERIMENT.run(config, study.call)
    assert dataset.sizes["example"] == 500
    assert float(RESULTS.correct(dataset).mean()) >= 0.85
