"""Norms of random RNNs against a table that was measured in NumPy."""

import jax
import numpy as np
import pytest
from _kit import runs
from closed_forms import GAINS, NETS, Config, norms

from gradflow.cells import rnn

TABLE = {
    "tanh": [(-3.06, -14.3, -27.7), (-0.57, -2.07, -3.36), (-0.17, -0.62, -0.63),
             (0.15, -0.01, -0.04), (0.94, 1.73, 3.08)],
    "relu": [(-4.5, -22.8, -45.7), (-2.0, -9.8, -19.7), (-1.5, -7.6, -15.1),
             (-1.1, -5.5, -10.9), (0.18, 2.03, 4.12)],
    "linear": [(-3.0, -14.0, -27.1), (-0.45, -1.21, -1.58), (0.01, 1.08, 2.99),
               (0.42, 3.15, 7.13), (1.77, 9.89, 20.6)],
}  # fmt: skip
"""log10 of the norm at lags 10, 50 and 100 for each gain: means over 5 seeds, 100 units."""

SPECIAL = [
    ("relu", "identity", (-0.35, -0.52, -0.58)),
    ("tanh", "orthogonal", (-0.18, -1.29, -2.66)),
]


@pytest.mark.slow
@pytest.mark.parametrize("net", NETS)
def test_norms_by_gain_agree_with_the_table(net):
    found = norms(Config(), NETS[net], "normal(gain=1.0)", GAINS)
    mean, spread = found.mean(axis=1), found.std(axis=1, ddof=1)
    error = spread * np.sqrt(1 / 5 + 1 / found.shape[1])  # of the difference of two samples
    assert (np.abs(mean - TABLE[net]) <= 3 * error).all()


@pytest.mark.slow
@pytest.mark.parametrize(("activation", "law", "wanted"), SPECIAL)
def test_norms_of_special_matrices_agree_with_the_table(activation, law, wanted):
    mean = norms(Config(), activation, law, (1.0,))[0].mean(axis=0)
    np.testing.assert_array_less(np.abs(mean - wanted), np.maximum(0.15 * np.abs(wanted), 0.3))


def test_linear_norms_are_those_of_matrix_powers():
    """Without a nonlinearity the Jacobian is a power of W_h, whatever the noise."""
    config = Config(hidden_size=6, num_seeds=2)
    cell = rnn(6, 6, activation="identity", recurrent_init="normal(gain=1.0)")
    found = norms(config, "identity", "normal(gain=1.0)", (0.9,))[0]
    for key, logs in zip(runs.keys(config), found, strict=True):
        W = 0.9 * np.asarray(cell.init(jax.random.split(key)[0])["W_h"])
        sizes = [np.linalg.norm(np.linalg.matrix_power(W, t)) for t in (10, 50, 100)]
        np.testing.assert_allclose(logs, np.log10(sizes) - np.log10(6) / 2, atol=1e-9)
