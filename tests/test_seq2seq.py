"""The encoder-decoder study: its data, its flow by automatic differentiation, its verdicts."""

import datetime
import runpy
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray
from jax.flatten_util import ravel_pytree

from gradflow import study
from gradflow.cells import lstm
from gradflow.interop import read_description

FILE = Path(__file__).parents[1] / "experiments" / "seq2seq.py"
sys.path.insert(0, str(FILE.parent))  # what the studies share is beside it
MODULE = runpy.run_path(str(FILE))
sys.path.remove(str(FILE.parent))
EXPERIMENT, Net, Pairs = MODULE["EXPERIMENT"], MODULE["Net"], MODULE["Pairs"]
TINY = [
    "--quick",
    "--cells=rnn",
    "--task=reversal",
    "--length=3",
    "--num_updates=3",
    "--probe=adjoints,gates",
]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("seq2seq")
    for name in ("one", "two"):
        assert study.main(EXPERIMENT, [*TINY, f"--workdir={folder / name}"]) == 0
    return folder / "one", folder / "two"


@pytest.fixture(scope="module")
def dataset(folders):
    return study.read_dataset(folders[0] / "result.nc")


def test_the_same_command_gives_the_same_bits(folders):
    one, two = ((folder / "result.nc").read_bytes() for folder in folders)
    assert one == two
    assert (folders[0] / "figure.png").stat().st_size > 10_000
    for name in ("encoder", "decoder"):
        assert read_description(folders[0] / "params" / f"rnn_{name}.safetensors").cell == "rnn"


def test_the_record_has_what_was_trained(dataset):
    assert dict(dataset.log_adjoint.sizes) == {
        "cell": 1, "stage": 2, "seed": 3, "sequence": 2, "step": 7
    }  # fmt: skip
    change = dataset.log_adjoint.sel(stage="end") - dataset.log_adjoint.sel(stage="birth")
    assert bool((abs(change) > 1e-5).all())
    assert [text[::-1] for text in dataset.source.values[0]] == list(dataset.target.values[0])
    right = dataset.free.isel(update=-1)
    assert bool((dataset.sequences.isel(update=-1) <= right).all()) and bool((right < 1).all())


def test_what_is_probed_along_the_way_is_what_is_measured_at_its_ends(dataset):
    assert dataset.adjoints.dims == ("cell", "seed", "probe_update", "lag")
    assert dataset.probe_update.values.tolist() == [0, 1, 2, 3] and "gates" not in dataset
    in_encoder = dataset.log_adjoint.sel(step=slice(None, 0)).median("sequence")
    for stage, update in (("birth", 0), ("end", 3)):
        expected = in_encoder.sel(stage=stage).values[..., ::-1]
        found = dataset.adjoints.sel(probe_update=update)
        np.testing.assert_allclose(found, expected, rtol=1e-9)


def read_back(pairs, symbols, texts):
    return ["".join(symbols[i] for i in row if i >= 0) for row in getattr(pairs, texts)]


@pytest.mark.parametrize("num_formats", [1, 3])
def test_dates_are_those_of_the_calendar_and_the_parts_share_none(num_formats):
    data = MODULE["dates"](num_formats)
    formats = ("%d %b %Y", "%B %d, %Y", "%d.%m.%Y")
    found, used = [], set()
    for pairs in (data.train, data.test):
        sources = read_back(pairs, data.read, "sources")
        assert pairs.lengths.tolist() == [len(text) for text in sources]
        for source, target in zip(sources, read_back(pairs, data.written, "targets"), strict=True):
            form = formats["." in source and 2 or "," in source and 1 or 0]
            used.add(form)
            day = datetime.datetime.strptime(source, form).date()
            assert target == day.isoformat()
            found.append(day)
    assert len(set(found)) == len(found) == 36525 and len(data.test.lengths) == 3652
    assert len(used) == num_formats


def test_reversed_digits_are_held_out_from_those_that_are_trained_on():
    data = MODULE["reversal"](3, num_drawn=2000)
    train, test = (read_back(part, data.read, "sources") for part in (data.train, data.test))
    assert read_back(data.test, data.written, "targets") == [text[::-1] for text in test]
    assert len(set(train) | set(test)) == len(train) + len(test) > 700 and len(test) > 70


NET = Net(lstm(5, 3), lstm(4, 3), 5, 4)


@pytest.fixture(scope="module")
def params():
    leaves, tree = jax.tree.flatten(NET.init(jax.random.key(0)))
    keys = jax.random.split(jax.random.key(1), len(leaves))
    noise = [leaf + jax.random.normal(k, leaf.shape) for leaf, k in zip(leaves, keys, strict=True)]
    return tree.unflatten(noise)


def test_adjoints_are_those_of_automatic_differentiation_through_both_halves(params):
    source, target = [4, 0, 2, 2], [1, 3, 0]
    flat, unravel = ravel_pytree(NET.encoder.initial_carry())

    def loss(changes):
        """Of the decoder, with a change added to each of the 5 + 3 carries."""
        s = unravel(flat + changes[0])
        for k, symbol in enumerate(source):
            s, _ = NET.encoder.step(params["encoder"], s, jnp.eye(5)[symbol])
            s = unravel(ravel_pytree(s)[0] + changes[1 + k])
        given, total = jnp.zeros(4), 0.0
        for k, symbol in enumerate(target):
            s, _ = NET.decoder.step(params["decoder"], s, given)
            s = unravel(ravel_pytree(s)[0] + changes[5 + k])
            logits = params["readout"]["W"] @ s.h + params["readout"]["b"]
            total += jnp.log(jnp.sum(jnp.exp(logits))) - logits[symbol]
            given = jnp.eye(4)[symbol]
        return total / 3

    expected = np.log(np.linalg.norm(jax.jit(jax.grad(loss))(jnp.zeros((8, 6))), axis=1))
    pair = Pairs(jnp.array(source), jnp.array(4), jnp.array(target))
    found = jax.jit(lambda: MODULE["log_adjoints"](NET, params, pair))()
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)


def test_what_it_writes_by_itself_is_what_it_says_given_the_same(params):
    sources = np.array([[0, 1, 2, 3], [4, 4, -1, -1], [1, -1, -1, -1]])
    pairs = Pairs(sources, np.array([4, 2, 1]), np.zeros((3, 6), int))
    free = jax.jit(NET.free)(params, pairs)
    own = pairs._replace(targets=np.asarray(free).T)
    found = jax.jit(lambda p: MODULE["evaluated"](NET, params, p))
    assert all(found(own)[name] == 1 for name in ("sequences", "forced", "free"))
    changed = own.targets.copy()
    changed[0, 2] = (changed[0, 2] + 1) % 4
    shares = found(own._replace(targets=changed))
    assert shares["sequences"] == pytest.approx(2 / 3) and shares["free"] == pytest.approx(17 / 18)
    logits = jax.jit(NET.forced)(params, own)
    short = Pairs(sources[1:2, :2], np.array([2]), own.targets[1:2])
    alone = jax.jit(NET.forced)(params, short)
    np.testing.assert_allclose(alone[:, 0], logits[:, 1], rtol=1e-10)


def test_the_verdicts_are_read_from_the_numbers(dataset):
    def closing(gain, cost, lift):
        first = dataset.assign(log_adjoint=dataset.log_adjoint * 0, forced=dataset.free + cost)
        first.log_adjoint.loc[{"stage": "end", "step": -2}] = lift
        first = first.assign(sequences=dataset.sequences * 0 + 0.5)
        second = first.assign(sequences=first.sequences + gain).assign_coords(cell=["lstm"])
        return EXPERIMENT.closing(xarray.concat([first, second], dim="cell")).splitlines()[-3:]

    for line, words in zip(closing(0.1, 0.1, 1), ["", *2 * ["rnn: supported, "]], strict=True):
        assert line.endswith(f"by this run: {words}lstm: supported")
    for line, words in zip(closing(0, 0, -1), ["", *2 * ["rnn: not supported, "]], strict=True):
        assert line.endswith(f"by this run: {words}lstm: not supported")
    assert "not judged without rnn and another" in EXPERIMENT.closing(dataset)


def test_the_long_form_has_its_sizes(monkeypatch):
    seen = []

    def net(spec, config, data):
        seen.append((config, data))
        raise KeyboardInterrupt

    monkeypatch.setitem(EXPERIMENT.run.__globals__, "_net", net)
    with pytest.raises(KeyboardInterrupt):
        EXPERIMENT.run(EXPERIMENT.resolve({"task": "reversal"}, full=True), study.call)
    ((config, data),) = seen
    assert config.hidden_size == EXPERIMENT.full["hidden_size"]
    assert data.train.sources.shape[1] == 30


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"cells": ""}, "the name of a cell is expected, got ''"),
        ({"cells": "lsmt"}, "unknown cell 'lsmt'"),
        ({"num_formats": 4}, "1 to 3 formats are expected, got 4"),
        ({"num_updates": 7}, "num_updates is expected to be a multiple of num_evaluations=3"),
        ({"probe": "gates", "cells": "rnn"}, "the probe 'gates' needs a cell with gates"),
        ({"probe_every": 3}, "probe_every is expected to be a multiple of eval_every=2"),
    ],
)
def test_what_cannot_be_trained_is_said(given, message):
    with pytest.raises(ValueError, match=message):
        EXPERIMENT.run(EXPERIMENT.resolve(given, quick=True), study.call)


@pytest.mark.slow  # a net of the default size is trained: less than a minute
def test_the_lstm_learns_to_write_the_dates_that_are_held_out():
    given = {"cells": "lstm", "num_updates": 900, "num_evaluations": 3, "num_seeds": 2}
    config = EXPERIMENT.resolve(given)
    with study.precision(config):
        dataset = EXPERIMENT.run(config, study.call)
    assert float(dataset.sequences.isel(update=-1).min()) >= 0.98
    reaching = MODULE["reaching"](dataset)
    assert bool((reaching.sel(stage="end") > reaching.sel(stage="birth")).all())
