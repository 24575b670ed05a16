"""Options of every cell: a value of another type or out of range is an error of one line."""

import inspect
import math
import re

import jax
import pytest

from gradflow.cell import param_shapes
from gradflow.cells import CELLS, resolve

NUMBERS = [3, -1, 0, 2.5]
"""Values that may be right, which depends on the option."""

NONSENSE = ["x", "3", "nan", b"x", math.nan, math.inf, -math.inf, 10**30, 10**400, 1j, (0.5,), {}]
NONSENSE += [True, False, None, (), []]


def is_right(default: object, value: object) -> bool:
    """Whether a value may be right because it is of the kind of the default."""
    if value is None:
        return default is None
    return isinstance(value, bool) and isinstance(default, bool)


def failure(name: str, option: str, value: object) -> str | None:
    """What is wrong with how a cell takes a value of an option that is not right."""
    try:
        cell = CELLS[name](2, 8, **{option: value})
        x = jax.ShapeDtypeStruct((2,), float)
        jax.eval_shape(cell.step, param_shapes(cell), jax.eval_shape(cell.initial_carry), x)
    except (TypeError, ValueError) as error:
        message = str(error)
        if message.startswith(("Expected", "Unknown")) and "\n" not in message:
            return None
        return f"{name}({option}={value!r}): {message[:100]}"
    except Exception as error:
        return f"{name}({option}={value!r}): {error!r}"[:200]
    return f"{name}({option}={value!r}) is accepted"


@pytest.mark.parametrize("name", CELLS)
def test_a_value_that_cannot_be_right_raises(name, without_checks_of_types):
    options = {
        option: parameter.default
        for option, parameter in inspect.signature(CELLS[name]).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY
    }
    found = [
        failure(name, option, value)
        for option, default in options.items()
        for value in [*NONSENSE, *(NUMBERS if isinstance(default, bool | str) else [])]
        if not is_right(default, value)
    ]
    assert [one for one in found if one] == []


FLAG = "to be True or False, got"
POSITIVE = "to be positive, got 0.0. Set"
WITH_HEADS = ["deltanet", "gated_deltanet", "gla", "hgrn2", "mlstm", "retnet", "rwkv7", "slstm"]
WITH_HEADS += ["ttt_linear"]

WRONG_KINDS = {
    "lstm(peephole=3)": "Expected peephole to be True or False, got 3. Set it to one",
    "lstm(coupled='no')": "Expected coupled to be True or False, got 'no'",
    "lstm(forget_bias=True)": "Expected a constant bias to be a number, got True",
    "rnn(residual=0)": f"Expected residual {FLAG} 0",
    "minimal_rnn(update_bias='3')": "Expected update_bias to be a number, got '3'",
    "masked(pattern=1)": "Expected pattern to be a text, got 1. Write it in quotes",
    "clockwork(periods=2)": r"Expected periods to be a tuple, got 2. Write \(1, 2, 4, 8\)",
    "clockwork(periods=(1, True))": "Expected every period to be an integer, got True",
    "stack(cells=2)": "Expected a list of names to be a text, got 2",
    "conv_lstm(kernel_size=1.5)": "Expected kernel_size to be an integer, got 1.5. Set",
    "conv_lstm(peephole=1)": f"Expected peephole {FLAG} 1",
    "deltanet(negative_eigenvalues=2)": f"Expected negative_eigenvalues {FLAG} 2",
    "gated_deltanet(negative_eigenvalues=2)": f"Expected negative_eigenvalues {FLAG} 2",
    "mamba(negative_eigenvalues=1)": f"Expected negative_eigenvalues {FLAG} 1",
    "retnet(rotation=1)": f"Expected rotation {FLAG} 1",
    "mlstm(stabilised=1)": f"Expected stabilised {FLAG} 1",
    "slstm(stabilised=0)": f"Expected stabilised {FLAG} 0",
    "ttt_linear(layer_norm=1)": f"Expected layer_norm {FLAG} 1",
}

WRONG_VALUES = {
    "zoneout(rate={'h': 2, 'c': 0.1})": "Expected the rate of h to be between 0 and 1, got 2",
    "gru(recurrent_init=1)": "Expected a name with options to be a text, got 1",
    "residual(scale=9999999999)": "Expected scale to be an integer up to 2147483647 or a dec",
    "antisymmetric(eps=0.0)": f"Expected eps {POSITIVE} eps",
    "gated_antisymmetric(eps=0.0)": f"Expected eps {POSITIVE} eps",
    "antisymmetric(gamma=-0.1)": "Expected gamma to be non-negative, got -0.1. Set gamma",
    "gated_antisymmetric(gamma=-0.1)": "Expected gamma to be non-negative, got -0.1. Set gamma",
    "clockwork(periods=())": r"Expected at least one period, got \(\). Set periods",
    "clockwork(periods=(1, 0))": "Expected every period to be at least 1, got 0",
    "clockwork(periods=(1, 2, 4, 8, 16))": "each of the 5 modules, got hidden_size=4. Set hidden_s",
    "conv_lstm(height=2, width=2)": r"multiples of height · width = 4, got 3 and 4\. Se",
    "conv_lstm(height=0)": "Expected height to be at least 1, got 0. Set height to",
    "cornn(dt=0.0)": f"Expected dt {POSITIVE} dt to, for example, 0.1.",
    "cornn(gamma=-1.0)": "Expected gamma to be non-negative, got -1.0. Set gamma to",
    "cornn(epsilon=-1.0)": "Expected epsilon to be non-negative, got -1.0. Set epsilon",
    "cornn(damping='explicitly')": "Unknown damping 'explicitly'. Did you mean 'explicit'",
    "fastrnn(alpha=1e999)": "Expected alpha to be finite, got inf. Set alpha to",
    "fastgrnn(nu=1e999)": "Expected nu to be finite, got inf. Set nu to",
    "rg_lru(c=0.0)": f"Expected c {POSITIVE} c",
    "rg_lru(a_min=0.0)": f"Expected a_min {POSITIVE} a_min",
    "rg_lru(a_max=1.0)": "Expected a_max to be at least 0 and below 1, got 1.0. Set a_max",
    "rg_lru(a_min=0.9, a_max=0.5)": "Expected a_min <= a_max, got 0.9 and 0.5. Swap them",
    "rhn(depth=0)": "Expected depth to be at least 1, got 0. Set depth to",
    "indrnn(recurrent_low=-1e999)": "Expected recurrent_low to be finite, got -inf. Set recurrent",
    "indrnn(recurrent_high=1e999)": "Expected recurrent_high to be finite, got inf. Set recurrent",
    "indrnn(recurrent_low=1.0, recurrent_high=0.5)": "low <= recurrent_high, got 1.0 and 0.5. Swap",
    "indrnn(activation='rely')": "Unknown activation 'rely'. Did you mean 'relu'",
    "irnn(scale=0.0)": f"Expected scale {POSITIVE}",
    "lstm_layer_norm(eps=0.0)": "Expected eps to be positive, got 0.0",
    "gru_layer_norm(eps=0.0)": "Expected eps to be positive, got 0.0",
    "lem(dt=0.0)": f"Expected dt {POSITIVE} dt",
    "gla(tau=0.0)": "Expected tau to be positive, got 0.0",
    "hgrn2(lower_bound=1.0)": "Expected lower_bound to be at least 0 and below",
    "lipschitz(eps=0.0)": f"Expected eps {POSITIVE} eps to, for example, 0.01.",
    "lipschitz(beta=1.2)": "Expected beta to be between 0 and 1, got 1.2. Set beta to, for example",
    "lipschitz(gamma=-0.1)": "Expected gamma to be non-negative, got -0.1. Set gamma",
    "lru(r_min=-0.1)": "Expected r_min to be between 0 and 1, got -0.1",
    "lru(r_max=1.1)": "Expected r_max to be between 0 and 1, got 1.1",
    "lru(r_min=0.5, r_max=0.5)": "Expected r_min < r_max, got 0.5 and 0.5. Set them",
    "lru(max_phase=0.0)": f"Expected max_phase {POSITIVE}",
    "lstm(coupled=True, forget_gate=False)": "forget_gate=False, got coupled=True .* Remove them",
    "lstm(forget_bias=0.0, forget_gate=False)": "forget_gate=False, got .* and forget_bias=0.0",
    "lstm(peephole='f', forget_gate=False)": "gates among 'io' with these options, got 'f'",
    "lstm(peephole='if', coupled=True)": "gates among 'fo' with these options, got 'i'",
    "lstm(peephole='g')": "among 'ifo' .*, got 'g' in peephole='g'. Remove 'g'",
    "mlstm(forget_gate='tanh')": "Unknown forget gate 'tanh'",
    "slstm(forget_gate='exponential')": "Unknown forget gate 'exponential'",
    "nnrnn(activation='modrelo')": "Unknown activation 'modrelo'. Did you mean 'modrelu'",
    "nnrnn(skew_init='henaf')": "Unknown skew initialiser 'henaf'. Did you mean 'henaff'",
    "orthogonal(method='cailey')": "Unknown method 'cailey'. Did you mean 'cayley'",
    "orthogonal(activation='modrelo')": "Unknown activation 'modrelo'. Did you mean 'modrelu'",
    "orthogonal(skew_init='henaf')": "Unknown skew initialiser 'henaf'. Did you mean 'henaff'",
    "orthogonal(num_negative=5)": "Expected num_negative to be between 0 and 4, got 5. Set num_n",
    "orthogonal(num_negative=-1)": "Expected num_negative to be between 0 and 4, got -1. Set num_n",
    "rnn(activation='tahn')": r"Unknown activation 'tahn'. Did you mean 'tanh'\?",
    "scrn(alpha=1.0)": "Expected alpha to be at least 0 and below 1, got 1.0. Set alpha to",
    "scrn(alpha=-0.1)": "Expected alpha to be at least 0 and below 1, got -0.1",
    "scrn(context_size=0)": "Expected context_size to be at least 1, got 0. Set",
    "scrn(context_size=9999999999)": "Expected context_size to be at most 2147483647",
    "mamba(state_size=0)": "Expected state_size to be at least 1, got 0",
    "mamba2(state_size=0)": "Expected state_size to be at least 1, got 0",
    "mamba2(num_heads=3)": "num_heads to divide hidden_size = 4, got 3. Set num_h",
    "mamba2(num_heads=0)": "Expected num_heads to be at least 1, got 0",
    "s4d(state_size=0)": "Expected state_size to be at least 1, got 0",
    "s5(state_size=0)": "Expected state_size to be at least 1, got 0",
    "s4d(discretization='euler')": "Unknown discretisation 'euler'. Known: bilinear, zoh",
    "s4d(state_init='legs')": "Unknown state initialiser 'legs'. Known: inv, lin",
    "ttt_linear(learning_rate=0.0)": "Expected learning_rate to be positive, got 0.0",
    "unicornn(dt=-0.1)": "Expected dt to be positive, got -0.1. Set dt to",
    "unicornn(alpha=-0.1)": "Expected alpha to be non-negative, got -0.1. Set alpha",
    "unitary(permutation_seed=-1)": "Expected permutation_seed to be between 0 and 4294967295, got",
    "full_unitary(method='cailey')": "Unknown .* 'cailey'. Did you mean 'cayley'",
    "full_unitary(skew_init='cailey')": "Unknown .* 'cailey'. Did you mean 'cayley'",
}
for _name in ("s4d", "s5", "mamba", "mamba2"):
    WRONG_VALUES[f"{_name}(dt_min=0.0)"] = "Expected dt_min to be positive, got 0.0"
    WRONG_VALUES[f"{_name}(dt_max=-1.0)"] = "Expected dt_max to be positive, got -1.0"
    WRONG_VALUES[f"{_name}(dt_min=0.2, dt_max=0.1)"] = "Expected dt_min <= dt_max, got 0.2 and 0.1"
for _name in WITH_HEADS:
    _expected = "divide hidden_size=4, got 3. Set num_heads to one of 1, 2, 4"
    WRONG_VALUES[f"{_name}(num_heads=3)"] = f"Expected num_heads to {_expected}"
    WRONG_VALUES[f"{_name}(num_heads=0)"] = "Expected num_heads to be at least 1, got 0"


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [(TypeError, WRONG_KINDS), (ValueError, WRONG_VALUES)],
    ids=["kinds", "values"],
)
def test_the_error_says_what_is_expected(kind, wrong, without_checks_of_types):
    def said(spec):
        try:
            resolve(spec)(3, 4)
        except (TypeError, ValueError) as error:
            return str(error) if isinstance(error, kind) else f"a {type(error).__name__}"
        return "no error"

    found = {spec: said(spec) for spec in wrong}
    assert {s: m for s, m in found.items() if not re.search(wrong[s], m)} == {}


@pytest.mark.parametrize(
    ("name", "hidden_size", "message"),
    [
        ("nnrnn", 5, "Expected an even hidden_size, .* got 5. Set hidden_size to 6."),
        ("lstm_layer_norm", 1, "Expected hidden_size to be at least 2, got 1. Set hidden_size"),
        ("gru_layer_norm", 1, "Expected hidden_size to be at least 2, got 1. Set hidden_size"),
    ],
)
def test_sizes_that_a_cell_does_not_have_raise(name, hidden_size, message):
    with pytest.raises(ValueError, match=message):
        CELLS[name](3, hidden_size)
