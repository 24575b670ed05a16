"""The study of characters: its record, its resumption, what it writes, and bad input."""

import json
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from studies import load_part, verdicts

from gradflow import study, unroll
from gradflow.cells import resolve
from gradflow.data.characters import as_segments, read_characters
from gradflow.interop import read_description, read_params

PANGRAM = "the quick brown fox jumps over the lazy dog.\n"
CHAR_LM, READER = load_part("char_lm.study"), load_part("char_lm.reader")
RESULTS = load_part("char_lm.results")


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "text.txt"
    rng = np.random.default_rng(0)
    path.write_text("".join(PANGRAM[int(start) :] for start in rng.integers(0, 20, 30)))
    return path


def run(folder, text, *flags):
    given = ["--quick", "--hidden_size=4", "--probe=gates,spectrum"]
    given += ["--cell=gru", "--num_updates=40", "--learning_rates=0.01"]
    given += [f"--text={text}", f"--workdir={folder}"]
    return CHAR_LM.main([*given, *flags])


@pytest.fixture(scope="module")
def recorded(tmp_path_factory, text):
    folder = tmp_path_factory.mktemp("char_lm") / "out"
    assert run(folder, text) == 0
    return folder


def test_the_record_agrees_with_the_saved_cell(recorded, text):
    dataset = study.read_dataset(recorded / "result.nc").sel(cell="gru").isel(seed=0)
    path = recorded / "params" / "gru.safetensors"
    about, characters = read_description(path), read_characters(text)
    assert about == ("gru", len(characters.alphabet), 4)
    cell = resolve(about.cell)(about.input_size, about.hidden_size)
    params = read_params(path, jax.eval_shape(cell.init, jax.random.key(0)))
    codes, weights = as_segments(characters.codes, characters.num_trained, 4, 12)
    outputs = unroll(cell, params, jnp.eye(about.input_size)[codes[:-1]]).outputs
    scores = np.asarray(outputs) @ dataset.readout_W.values.T + dataset.readout_b.values
    chosen = np.take_along_axis(scores, codes[1:, :, None], axis=-1)[..., 0]
    nats = np.log(np.exp(scores).sum(axis=-1)) - chosen
    expected = (nats * weights[1:]).sum(axis=0) / weights.sum(axis=0) / np.log(2)
    np.testing.assert_allclose(dataset.bits.isel(update=-1), expected, rtol=1e-4)
    whole = RESULTS.per_character(dataset)
    np.testing.assert_allclose(whole[-1], (nats * weights[1:]).sum() / weights.sum() / np.log(2),
                               rtol=1e-4)  # fmt: skip
    assert float(whole[-1]) < float(whole[0])
    check_probes(dataset, cell, jax.tree.map(lambda leaf: jnp.asarray(leaf, float), params), text)


def check_probes(dataset, cell, params, text):
    """What was probed last, by automatic differentiation over the same windows of the text."""
    assert dataset.probe_update.values.tolist() == [0, 20, 40]
    assert dataset.log_norm.shape == (3, 13) and "log_norms" not in dataset
    characters = read_characters(text)
    held_out = characters.codes[characters.num_trained :]
    with jax.enable_x64(False):  # as the training has it
        key = jax.random.fold_in(jax.random.key(0), 1)
        starts = np.asarray(jax.random.randint(key, (2,), 0, len(held_out) - 12))
    windows = jnp.eye(len(characters.alphabet))[held_out[starts + np.arange(12)[:, None]]]

    @jax.jit
    def through(inputs):
        def after(change):
            h, shares = cell.initial_carry() + change[0], []
            for k, x in enumerate(inputs):
                z = cell.gates(params, h, x)["z"]
                shares.append(jnp.mean((z < 0.1) | (z > 0.9)))
                h = cell.step(params, h, x)[0] + change[k + 1]
            return h, jnp.stack(shares)

        return jax.jacrev(after, has_aux=True)(jnp.zeros((13, 4)))

    found = [through(windows[:, n]) for n in range(2)]
    sizes = [np.linalg.svd(np.moveaxis(J, 1, 0), compute_uv=False) for J, _ in found]
    last = dataset.sel(probe_update=40)
    norms = np.log([of_window[:, 0] for of_window in sizes]).mean(axis=0)
    np.testing.assert_allclose(last.log_norm, norms[::-1], rtol=1e-8, atol=1e-12)
    spectrum = np.log([of_window[0] for of_window in sizes]).mean(axis=0)
    np.testing.assert_allclose(last.spectrum[:3], spectrum[:3], rtol=1e-6)
    shares = np.mean([share for _, share in found], axis=0)
    np.testing.assert_allclose(last.gates.sel(gate="z")[:-1], shares[::-1], atol=1e-12)
    assert np.isnan(last.gates.isel(lag=-1)).all()


def test_an_interrupted_training_resumes_to_the_same_record(recorded, text, tmp_path, monkeypatch):
    folder, advance, done = tmp_path / "out", READER.advance, []

    def interrupt(
        *arguments,
    ):  # after two updates of the validation seed, in the second of the other
        done.append(len(done))
        if len(done) == 4:
            raise KeyboardInterrupt
        return advance(*arguments)

    monkeypatch.setattr(READER, "advance", interrupt)
    assert run(folder, text) == 130
    (metrics,) = folder.glob("units/*/metrics.jsonl")
    assert [json.loads(line)["update"] for line in metrics.read_text().splitlines()] == [0, 20]
    assert run(folder, text) == 0
    assert len(done) == 5
    assert (folder / "result.nc").read_bytes() == (recorded / "result.nc").read_bytes()


def test_a_finished_run_continues_a_given_text(recorded, text, capsys):
    written = []
    for _ in range(2):
        assert run(recorded, text, "--sample=the fox", "--num_characters=12") == 0
        written.append(capsys.readouterr().out.partition("temperature 0.8 ---\n")[2])
    assert written[0] == written[1] and written[0].startswith("the fox")
    assert len(written[0]) == len("the fox") + 12 + 1
    for flag, message in (
        ("--sample=FOX", "got 'F', 'O', 'X' in 'FOX'. Remove these characters."),
        ("--sample=", "Expected at least one symbol to begin from"),
    ):
        assert run(recorded, text, flag) == 1
        assert message in capsys.readouterr().err
    assert run(recorded, text, "--sample=a", "--temperature=0") == 1
    assert "Expected a positive temperature, got 0" in capsys.readouterr().err
    assert run(recorded, text, "--sample=a", "--temperature=cold") == 2
    assert capsys.readouterr().err.count("\n") == 1


def two_cells(dataset, saved, num_seeds=1):
    """The record as if the tanh RNN had needed so many bits more, and reached less far."""
    import xarray

    rnn = dataset.assign_coords(cell=["rnn"])
    rnn = rnn.assign(bits=rnn.bits + saved, log_norm=rnn.log_norm - 50.0 * (dataset.lag > 3))
    both = xarray.concat([rnn, dataset], dim="cell")
    return xarray.concat([both] * num_seeds, dim="seed", data_vars="minimal")


def test_the_claims_are_about_the_same_stretches(recorded):
    dataset = study.read_dataset(recorded / "result.nc")
    claims = CHAR_LM.EXPERIMENT.claims(two_cells(dataset, 0.25))
    one_seed = {
        "fewer-bits-gru": "supported",
        "reaches-further-gru": "inconclusive",  # it has an interval over seeds alone
        "few-bits": "not supported",
    }
    assert verdicts(claims) == one_seed
    (saved,) = claims[0].measured
    np.testing.assert_allclose([saved.value, *saved.interval], 0.25, rtol=1e-4)
    claims = CHAR_LM.EXPERIMENT.claims(two_cells(dataset, 0.25, num_seeds=2))
    assert verdicts(claims) == {**one_seed, "reaches-further-gru": "supported"}
    assert claims[1].measured[0].value == 12 - 4  # the longest lag less the first that is cut
    worse = CHAR_LM.EXPERIMENT.claims(two_cells(dataset, -0.25))
    assert verdicts(worse)["fewer-bits-gru"] == "not supported"
    assert verdicts(CHAR_LM.EXPERIMENT.claims(dataset)) == {"few-bits": "not supported"}
    assert "The best network is gru." in CHAR_LM.EXPERIMENT.summary(two_cells(dataset, 0.25))
    figure = CHAR_LM.EXPERIMENT.draw(two_cells(dataset, 0.25))
    assert len(figure.subfigs) == 2 + 4  # the gates r, z, n and the spectrum


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--text=gone", "Expected the file 'gone' in '.'"),
        ("--cell=", "Expected the name of a cell"),
        ("--cell=lsmt", "Unknown cell 'lsmt'"),
        ("--probe=gates", "The probe 'gates' needs a cell with gates"),
        ("--probe=gate", "Unknown probe 'gate'"),
        ("--probe_every=30", "Expected probe_every to be a positive multiple of eval_every=20"),
        ("--num_streams=900", "Expected at least two characters for each of 900 streams"),
        ("--window=300", "Expected streams of more than window=300 symbols"),
        ("--flow_steps=500", "Expected a text of more than 500 symbols"),
        ("--eval_every=7", "Expected num_updates to be a positive multiple of eval_every=7"),
        ("--optimiser=adam(learning_rate=1)", "learning rates in --learning_rates, got one in"),
        ("--optimiser=adma", "Unknown optimiser 'adma'"),
        ("--clipping=nome", "Unknown clipping 'nome'"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(tmp_path, text, capsys, flag, message):
    given = ["--quick", "--cell=rnn", f"--text={text}", f"--workdir={tmp_path}/out", flag]
    assert CHAR_LM.main(given) in (1, 2)
    shown = capsys.readouterr().err
    assert message in shown and shown.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_cells_have_as_many_weights_and_their_own_rates(tmp_path, text):
    given = ["--quick", "--num_weights=300", f"--text={text}", f"--workdir={tmp_path}/out"]
    given += ["--cell=rnn,gru(update_bias=1)", "--num_updates=20", "--learning_rates=0.001,0.1"]
    assert CHAR_LM.main(given) == 0
    dataset = study.read_dataset(tmp_path / "out" / "result.nc")
    weights = dataset.num_weights.isel(seed=0).values
    np.testing.assert_allclose(weights, 300, rtol=0.15)
    tried = dataset.validation_loss
    assert tried.dims == ("cell", "tried_rate", "validation_seed") and tried.shape == (2, 2, 1)
    assert len(np.unique(tried)) == 4
    chosen = tried.isel(validation_seed=0).idxmin("tried_rate")
    np.testing.assert_array_equal(dataset.learning_rate, chosen)
    final = RESULTS.per_character(dataset).isel(update=-1, seed=0).values
    assert (abs(final - tried.isel(validation_seed=0).min("tried_rate")) > 1e-4).all()
    assert "fewer-bits-gru" in verdicts(CHAR_LM.EXPERIMENT.claims(dataset))


def test_an_error_without_a_text_names_a_published_one(tmp_path, capsys):
    assert CHAR_LM.main(["--quick", f"--workdir={tmp_path}/out"]) == 1
    assert "https://github.com/karpathy/char-rnn" in capsys.readouterr().err


def test_without_a_probe_the_flow_is_measured_at_both_ends():
    config = CHAR_LM.Config(num_updates=60, eval_every=20)
    assert config.schedule.probings.tolist() == [0, 60]


@pytest.mark.slow  # a net of the default size is trained on Tiny Shakespeare: two to three minutes
def test_two_layers_of_gru_need_few_bits():
    if "GRADFLOW_DATA" not in os.environ:
        pytest.skip("GRADFLOW_DATA is to name a folder with tinyshakespeare/input.txt")
    path = Path(os.environ["GRADFLOW_DATA"]) / "tinyshakespeare" / "input.txt"
    given = {"cell": "stack(cells='gru,gru')", "text": str(path), "eval_every": 3000}
    config = CHAR_LM.EXPERIMENT.resolve(given)
    with study.precision(config):
        dataset = CHAR_LM.EXPERIMENT.run(config, study.call)
    assert RESULTS.per_character(dataset).isel(update=-1).item() <= RESULTS.TARGET
