"""Numbers of parameters against the usual formulas."""

import jax
import pytest

from gradflow.cells import CELLS


def count(cell):
    return sum(leaf.size for leaf in jax.tree.leaves(jax.eval_shape(cell.init, jax.random.key(0))))


def layer(m, n):
    """Parameters of one gate: a matrix on [x; h] and a bias."""
    return (m + n) * n + n


FORMULAS = {
    "rnn": lambda m, n: layer(m, n),
    "irnn": lambda m, n: layer(m, n),
    "lstm": lambda m, n: 4 * layer(m, n),
    "gru_reset_before": lambda m, n: 3 * layer(m, n),
    "gru": lambda m, n: 3 * layer(m, n) + n,  # the candidate's hidden bias
    "mgu": lambda m, n: 2 * layer(m, n),
    "ugrnn": lambda m, n: 2 * layer(m, n),
    "janet": lambda m, n: 2 * layer(m, n),
    "cfn": lambda m, n: 2 * layer(m, n) + m * n,
    "mingru": lambda m, n: 2 * (m + 1) * n,
    "minlstm": lambda m, n: 3 * (m + 1) * n,
    "indrnn": lambda m, n: (m + 1) * n + n,
    "retnet": lambda m, n: 3 * m * n,
    "gla": lambda m, n: 4 * m * n + n,
    "hgrn2": lambda m, n: 3 * m * n + n,
    "deltanet": lambda m, n: 3 * m * n + m,
    "gated_deltanet": lambda m, n: 3 * m * n + 2 * m + 2,
    "rwkv7": lambda m, n: 5 * m * n + 4 * n,
    "slstm": lambda m, n: 4 * layer(m, n),
    "mlstm": lambda m, n: 3 * m * n + 2 * (m + 1),
    "ttt_linear": lambda m, n: 3 * m * n + (m + 1) + n * n + 2 * n,
    "stack": lambda m, n: 4 * layer(m, n) + 4 * layer(n, n),
    "atr": lambda m, n: layer(m, n),
    "ran": lambda m, n: 2 * layer(m, n) + m * n,
    "brc": lambda m, n: 3 * m * n + 4 * n,
    "nbrc": lambda m, n: 2 * layer(m, n) + m * n,
    "fastrnn": lambda m, n: layer(m, n) + 2,
    "fastgrnn": lambda m, n: layer(m, n) + n + 2,
    "star": lambda m, n: layer(m, n) + (m + 1) * n,
    "light_ru": lambda m, n: layer(m, n) + m * n,
    "ligru": lambda m, n: 2 * layer(m, n),
    "rhn": lambda m, n: 2 * layer(m, n) + 4 * (n + 1) * n,  # three layers, x in the first alone
    "nas": lambda m, n: 8 * layer(m, n),
    "multiplicative_lstm": lambda m, n: 4 * layer(m, n) + (m + n) * n,
    "residual_lstm": lambda m, n: 4 * layer(m, n) + 3 * n + n * n + m * n,
    "conv_lstm": lambda m, n: 4 * layer(9 * m, n) + 4 * 8 * n * n,  # kernels of 3 by 3
    "conv_gru": lambda m, n: 3 * layer(9 * m, n) + 3 * 8 * n * n,
}


@pytest.mark.parametrize("m, n", [(64, 16), (2, 32)])
def test_number_of_parameters_equals_the_formula(m, n):
    found = {name: count(CELLS[name](m, n)) for name in FORMULAS}
    assert found == {name: formula(m, n) for name, formula in FORMULAS.items()}


@pytest.mark.parametrize(
    "options, gates, peepholes",
    [
        ({"peephole": True}, 4, 3),
        ({"peephole": "o"}, 4, 1),
        ({"coupled": True}, 3, 0),
        ({"forget_gate": False}, 3, 0),
    ],
)
def test_lstm_variant_has_parameters_of_its_own_gates_only(options, gates, peepholes):
    assert count(CELLS["lstm"](5, 7, **options)) == gates * layer(5, 7) + peepholes * 7


def test_number_of_parameters_equals_keras():
    assert count(CELLS["rnn"](64, 16)) == 1296  # SimpleRNN(16) on 64 inputs
    # Keras's GRU(32, reset_after=True) on 2 inputs has 3,456: an input and a hidden bias for each
    # gate. Those of r and z are only ever added, so that here they are one each, of 2 · 32 fewer.
    assert count(CELLS["gru"](2, 32)) + 2 * 32 == 3456
