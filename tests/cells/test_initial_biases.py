"""The initial biases of every gate: the given ones, and zero elsewhere."""

import jax
import numpy as np

from gradflow.cells import resolve

BIASES = {
    "cfn": {"f": 1, "i": -1},
    "cfn(forget_bias=2.0, input_bias=0.5)": {"f": 2, "i": 0.5},
    "gru": {},
    "gru_reset_before": {},
    "ligru(forget_bias=1.5)": {"z": 1.5},
    "lstm": {"f": 1},
    "lstm(forget_bias=0.0)": {},
    "lstm(forget_bias=-2.5)": {"f": -2.5},
    "lstm(forget_bias=2.5, peephole=True)": {"f": 2.5},
    "lstm(forget_gate=False)": {},
    "lstm(forget_gate=False, input_bias=-3.0)": {"i": -3},
    "mgu": {},
    "mingru": {},
    "minimal_rnn": {},
    "minimal_rnn(update_bias=4.0)": {"u": 4},
    "minlstm": {},
    "minlstm(forget_bias=3.0)": {"f": 3},
    "mlstm(num_heads=2, forget_bias=4.0)": {"f": 4},
    "multiplicative_lstm(forget_bias=2.0)": {"f": 2},
    "residual_lstm(forget_bias=2.0)": {"f": 2},
    "slstm(num_heads=2, forget_bias=-2.0)": {"f": -2},
    "star(forget_bias=2.0)": {"k": -2},
    "ugrnn": {"g": 1},
    "ugrnn(forget_bias=4.0)": {"g": 4},
}


def test_every_gate_has_the_given_bias_or_zero(key):
    wrong = []
    for spec, given in BIASES.items():
        params, expected = resolve(spec)(2, 4).init(key), dict(given)
        for path, leaf in jax.tree_util.tree_leaves_with_path(params):
            gate, name = (entry.key for entry in path)
            if name in ("b", "b_h") and not np.all(leaf == expected.pop(gate, 0)):
                wrong.append(f"{spec}: {gate}.{name} = {leaf}")
        wrong += [f"{spec}: {gate} has no bias" for gate in expected]
    assert wrong == []
