"""Options of every cell: a value of another type or out of range is an error of one line."""

import inspect
import math

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


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("lstm(peephole=3)", "Expected peephole to be True or False, got 3. Set it to one"),
        ("lstm(coupled='no')", "Expected coupled to be True or False, got 'no'"),
        ("lstm(forget_bias=True)", "Expected a constant bias to be a number, got True"),
        ("rnn(residual=0)", "Expected residual to be True or False, got 0"),
        ("zoneout(rate={'h': 2, 'c': 0.1})", "Expected the rate of h to be between 0 and 1, got 2"),
        ("minimal_rnn(update_bias='3')", "Expected update_bias to be a number, got '3'"),
        ("masked(pattern=1)", "Expected pattern to be a text, got 1. Write it in quotes"),
        ("clockwork(periods=2)", r"Expected periods to be a tuple, got 2. Write \(1, 2, 4, 8\)"),
        ("orthogonal(skew_init='')", "Unknown skew initialiser ''"),
        ("gru(recurrent_init=1)", "Expected a name with options to be a text, got 1"),
        ("stack(cells=2)", "Expected a list of names to be a text, got 2"),
        ("residual(scale=9999999999)", "Expected scale to be an integer up to 2147483647 or a dec"),
        ("scrn(context_size=9999999999)", "Expected context_size to be at most 2147483647"),
    ],
)
def test_the_error_says_what_is_expected(spec, message, without_checks_of_types):
    with pytest.raises((TypeError, ValueError), match=message):
        resolve(spec)(2, 8)
