"""The contract test against cells that keep it, and against one cell for each way to break it."""

import itertools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradflow.cell import Cell
from gradflow.testing import CellContractError, check_cell, check_structure


class Two(NamedTuple):
    """Two states, of which h is the second."""

    c: jax.Array
    h: jax.Array


def good(input_size, hidden_size, *, act=jnp.tanh, cut=lambda value: value) -> Cell:
    """A gated cell of two states that keeps the contract, with places where to break it."""

    def init(key):
        shape = (hidden_size, hidden_size + input_size)
        return {"W": jax.random.normal(key, shape), "b": jnp.ones(hidden_size)}

    def gates(params, carry, x):
        inside = params["W"] @ jnp.concatenate([carry.h, x]) + params["b"]
        return {"f": jax.nn.sigmoid(inside)}

    def step(params, carry, x):
        f = gates(params, carry, x)["f"]
        c = f * cut(carry.c) + (1 - f) * act(params["W"] @ jnp.concatenate([carry.h, x]))
        carry = Two(c, jnp.sin(c))
        return carry, carry.h

    zeros = lambda: Two(jnp.zeros(hidden_size), jnp.zeros(hidden_size))  # noqa: E731
    return Cell(init, step, zeros, hidden=lambda carry: carry.h, gates=gates)


def changed(**parts: Callable) -> Callable[..., Cell]:
    """The good cell with some parts replaced; each is given the good cell."""

    def factory(input_size, hidden_size):
        cell = good(input_size, hidden_size)
        return cell._replace(**{name: make(cell) for name, make in parts.items()})

    return factory


def after(change: Callable) -> Callable:
    """A step that changes the pair (carry, h) of the good one."""
    return lambda cell: lambda *before: change(*cell.step(*before))


def violated(clause: str, expected: str, got: str):
    message = f"^Clause '{clause}': expected {expected}.* got {got}"
    return pytest.raises(CellContractError, match=message)


@pytest.mark.parametrize("x64", [True, False])
def test_a_good_cell_passes(x64):
    with jax.enable_x64(x64):
        check_cell(good)
        check_cell(good, input_size=0, hidden_size=1)


def linear(input_size, hidden_size) -> Cell:
    """A cell in whose parameters, carry and h everything is left at the default."""
    return Cell(
        lambda key: jax.random.normal(key, (hidden_size, hidden_size + input_size)),
        lambda W, h, x: (W @ jnp.concatenate([h, x]),) * 2,
        lambda: jnp.zeros(hidden_size),
    )


def without_parameters(input_size, hidden_size) -> Cell:
    step = lambda params, h, x: (jnp.roll(h, 1) + x.sum(),) * 2  # noqa: E731
    return Cell(lambda key: {}, step, lambda: jnp.zeros(hidden_size))


@pytest.mark.parametrize("factory", [linear, without_parameters])
def test_cells_of_few_parts_pass(factory):
    check_cell(factory)


def is_traced(leaf) -> bool:
    is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    try:
        np.asarray(jax.random.key_data(leaf) if is_key else leaf)
    except jax.errors.TracerArrayConversionError:
        return True
    return False


def only_traced(function):
    def traced(*args):
        assert all(is_traced(leaf) for leaf in jax.tree.leaves(args))
        return function(*args)

    return traced


def test_the_structure_is_checked_without_computing_anything():
    names = ("init", "step", "hidden", "gates")
    parts = {name: lambda cell, name=name: only_traced(getattr(cell, name)) for name in names}
    check_structure(changed(**parts))
    with pytest.raises(AssertionError):  # the guard itself works
        changed(**parts)(3, 4).init(jax.random.key(0))


def whole(make: Callable) -> Callable[..., Cell]:
    """The cell that an option of the good one gives."""
    return lambda input_size, hidden_size: good(input_size, hidden_size, **make())


class Unhashable:
    __hash__ = None  # type: ignore[assignment]

    def __call__(self, carry):
        return carry.h


STRUCTURE = {
    "three sizes": (
        lambda input_size, hidden_size, depth: good(input_size, hidden_size),
        ("factory", r"a factory to be called as factory\(input_size, hidden_size\)", ".*depth"),
    ),
    "no cell": (lambda i, h: tuple(good(i, h)), ("factory", "a gradflow.Cell", "tuple")),
    "unhashable": (
        changed(hidden=lambda cell: Unhashable()),
        ("hash", "a cell of hashable functions", "unhashable type: 'Unhashable'"),
    ),
    "integer parameter": (
        changed(init=lambda cell: lambda key: cell.init(key) | {"k": jnp.arange(3)}),
        ("init", "a pytree of floating arrays", r"int.* at \['k'\]"),
    ),
    "init by NumPy": (
        changed(init=lambda cell: lambda key: {"W": np.linalg.eigvals(cell.init(key)["W"])}),
        ("init", r"init\(key\) to return under JAX's tracing", "TracerArrayConv"),
    ),
    "integer carry": (
        changed(initial_carry=lambda cell: lambda: Two(jnp.zeros(4), jnp.zeros(4, int))),
        ("initial_carry", "a pytree of floating arrays", r"int.* at \.h"),
    ),
    "no carry": (
        changed(initial_carry=lambda cell: lambda: ()),
        ("initial_carry", "a pytree of at least one array", r"\(\)"),
    ),
    "carry that raises": (
        changed(initial_carry=lambda cell: lambda: jnp.zeros(4)[1, 2]),
        ("initial_carry", r"initial_carry\(\) to return", "IndexError"),
    ),
    "no pair": (
        changed(step=after(lambda carry, h: h)),
        ("step", r"a pair \(carry, h\)", "ShapeDtypeStruct"),
    ),
    "h of two arrays": (
        changed(step=after(lambda carry, h: (carry, (h, h)))),
        ("step", r"a pair \(carry, h\)", ".*ShapeDtypeStruct"),
    ),
    "step that raises": (
        changed(step=lambda cell: lambda params, carry, x: params["U"] @ x),
        ("step", r"step\(params, carry, x\) to return", "KeyError: 'U'"),
    ),
    "carry without names": (
        changed(step=after(lambda carry, h: (tuple(carry), h))),
        ("carry", r"a new carry like Two\(", r"\(ShapeDtypeStruct"),
    ),
    "carry of another shape": (
        changed(step=after(lambda carry, h: (Two(carry.c[None], carry.h), h))),
        ("carry", r"a new carry like Two\(", r"Two\(c=.*\(1, 4\)"),
    ),
    "carry of another type": (
        changed(step=after(lambda carry, h: (Two(carry.c + np.zeros(4), carry.h), h))),
        ("dtype", "float32 from a step on float32", r".*float64\[4\]|.*float64"),
    ),
    "h of another type": (
        changed(step=after(lambda carry, h: (carry, h.astype("float32")))),
        ("dtype", "float64 from a step on float64", ".*float32"),
    ),
    "h of another size": (
        changed(step=after(lambda carry, h: (carry, h[:2]))),
        ("hidden", "an h like the step's", r".*\(4,\)"),
    ),
    "hidden that raises": (
        changed(hidden=lambda cell: lambda carry: carry.state),
        ("hidden", r"hidden\(carry\) to return", "AttributeError"),
    ),
    "gates without names": (
        changed(gates=lambda cell: lambda *before: [cell.gates(*before)["f"]]),
        ("gates", "a mapping from gates' names to arrays", r"\[ShapeDtypeStruct"),
    ),
    "gate of another shape": (
        changed(gates=lambda cell: lambda *before: {"f": cell.gates(*before)["f"].sum()}),
        ("gates", r"a floating vector of shape \(hidden,\) for each gate", ".* for 'f'"),
    ),
    "gate of integers": (
        changed(gates=lambda cell: lambda *before: {"f": cell.gates(*before)["f"] > 0.5}),
        ("gates", r"a floating vector of shape \(hidden,\) for each gate", ".*bool.* for 'f'"),
    ),
    "gates that raise": (
        changed(gates=lambda cell: lambda params, carry, x: {"f": params["U"] @ x}),
        ("gates", r"gates\(params, carry, x\) to return", "KeyError"),
    ),
}


@pytest.mark.parametrize("factory, message", STRUCTURE.values(), ids=STRUCTURE)
def test_a_broken_structure_is_named_by_its_clause(factory, message):
    for check in (check_structure, check_cell):
        with violated(*message):
            check(factory)


def test_what_a_factory_raises_passes_through():
    def factory(input_size, hidden_size):
        raise ValueError("hidden_size must be even")

    with pytest.raises(ValueError, match="^hidden_size must be even$"):
        check_cell(factory)


def test_the_type_is_held_in_float32_alone_where_x64_is_off():
    adds_float64 = changed(step=after(lambda carry, h: (Two(carry.c + np.zeros(4), carry.h), h)))
    with jax.enable_x64(False):
        check_structure(adds_float64)
    with violated("dtype", "float32 from a step on float32", ".*"):
        check_structure(adds_float64)


def counting(function):
    calls = itertools.count()
    return lambda *args: jax.tree.map(lambda leaf: leaf + next(calls), function(*args))


def only_outside_of_tracing(value):
    try:
        return np.asarray(value) * 2
    except jax.errors.TracerArrayConversionError:
        return value


@jax.custom_batching.custom_vmap
def twice_in_a_batch(value):
    return value


@twice_in_a_batch.def_vmap
def _(axis_size, in_batched, value):
    return 2 * value, in_batched[0]


@jax.custom_vjp
def only_reverse(value):
    return jnp.tanh(value)


only_reverse.defvjp(
    lambda value: (jnp.tanh(value), value),
    lambda value, cotangent: (cotangent / jnp.cosh(value) ** 2,),
)


@jax.custom_jvp
def wrong_rule(value):
    return jnp.tanh(value)


wrong_rule.defjvp(lambda primals, tangents: (jnp.tanh(primals[0]), tangents[0] * 0.999))


def step_with(change: Callable) -> Callable:
    """A step whose arguments (params, carry, x) are changed before the good one sees them."""
    return lambda cell: lambda *before: cell.step(*change(*before))


def of_c(function: Callable) -> Callable:
    return after(lambda carry, h: (carry._replace(c=function(carry.c)), h))


def with_peephole(cell: Cell) -> Callable:
    """A step in which a cut carry is multiplied by a parameter that starts at zero."""

    def step(params, carry, x):
        return cell.step(params, carry._replace(c=carry.c + params["p"] * cut(carry.c)), x)

    return step


def norm_of_h(params, carry, x):
    return params, carry._replace(h=carry.h * jnp.sqrt(jnp.sum(carry.h**2))), x


cut = jax.lax.stop_gradient
NUMBERS = {
    "no randomness": (
        changed(init=lambda cell: lambda key: cell.init(jax.random.key(7))),
        ("key", "different parameters from different keys", "equal ones"),
    ),
    "randomness of its own": (
        changed(init=lambda cell: counting(cell.init)),
        ("key", "equal parameters from equal keys", "different ones"),
    ),
    "parameter that is not finite": (
        changed(init=lambda cell: lambda key: cell.init(key) | {"U": jnp.log(jnp.zeros(2))}),
        ("finite", "a finite value", r"-inf at params\.U\[0\] in step 1"),
    ),
    "carry that is not finite": (
        changed(initial_carry=lambda cell: lambda: Two(jnp.zeros(4), jnp.full(4, jnp.nan))),
        ("finite", "a finite value", r"nan at carry\.h\[0\] in step 1"),
    ),
    "step that overflows later": (
        changed(step=of_c(lambda c: jnp.exp(1e4 * c * (c > 0.1)))),
        ("finite", "a finite value", r"(inf|nan) at carry\.c\[\d\] in step"),
    ),
    "Jacobian that is not finite at zero": (
        changed(step=step_with(norm_of_h)),
        ("finite", "a finite step Jacobian at s_0", "NaN or inf"),
    ),
    "gate that is not finite": (
        changed(gates=lambda cell: lambda *before: {"f": jnp.log(-cell.gates(*before)["f"])}),
        ("gates", "a finite value", r"nan at f\[0\] in step 1"),
    ),
    "h that is not hidden": (
        changed(step=after(lambda carry, h: (carry, h + 1e-6))),
        ("hidden", r"h = hidden\(new carry\)", r"\[.*\] and \["),
    ),
    "step with a memory": (
        changed(step=lambda cell: counting_c(cell.step)),
        ("pure", "equal bits from equal arguments", "different ones"),
    ),
    "step that looks at values": (
        changed(step=of_c(only_outside_of_tracing)),
        ("jit", r"equal values under jax\.jit", "different ones"),
    ),
    "step that mixes a batch": (
        changed(step=of_c(twice_in_a_batch)),
        ("vmap", "equal values for a batch under jax.vmap", "different ones"),
    ),
    "step that has no batch": (
        changed(step=of_c(lambda c: jax.pure_callback(lambda v: v, c, c))),
        ("vmap", r"jax\.vmap\(step\) to return", "NotImplementedError|ValueError"),
    ),
    "cut carry": (
        whole(lambda: {"cut": cut}),
        ("gradient", r"∂carry\.c\[0\]/∂carry\.c\[0\] = 0\.\d+", r"0 in reverse mode, and 12 "),
    ),
    "cut behind a zero": (
        changed(
            init=lambda cell: lambda key: cell.init(key) | {"p": jnp.zeros(4)}, step=with_peephole
        ),
        ("gradient", r"∂carry\.c\[0\]/∂carry\.c\[0\] = ", ".* in reverse mode, and 12 "),
    ),
    "cut h": (
        changed(step=after(lambda carry, h: (carry, cut(h)))),
        ("gradient", r"∂h\[0\]/∂params\.W\[0, 0\] = ", "0 in reverse mode"),
    ),
    "cut parameter": (
        changed(step=step_with(lambda p, carry, x: (p | {"b": cut(p["b"])}, carry, x))),
        ("gradient", r"∂carry\.c\[0\]/∂params\.b\[0\] = ", "0 in reverse mode, and 12 "),
    ),
    "cut input": (
        changed(step=step_with(lambda p, carry, x: (p, carry, cut(x)))),
        ("gradient", r"∂carry\.c\[0\]/∂x\[0\] = ", "0 in reverse mode, and 36 "),
    ),
    "wrong derivative": (
        whole(lambda: {"act": wrong_rule}),
        ("gradient", r"∂carry\.c\[0\]/∂params\.W", ".* in reverse mode"),
    ),
    "no reverse mode": (
        changed(step=of_c(lambda c: jax.lax.while_loop(lambda v: v[0] > 9, lambda v: v - 1, c))),
        ("gradient", r"jax\.jacrev\(step\) to return", "ValueError: Reverse-mode"),
    ),
    "no forward mode": (
        whole(lambda: {"act": only_reverse}),
        ("forward", r"jax\.jacfwd\(step\) to return", "TypeError: can't apply forw"),
    ),
}


def counting_c(step):
    calls = itertools.count()

    def counted(*before):
        carry, h = step(*before)
        return carry._replace(c=carry.c + 0.1 * next(calls)), h

    return counted


@pytest.mark.parametrize("factory, message", NUMBERS.values(), ids=NUMBERS)
def test_a_broken_number_is_named_by_its_clause(factory, message):
    check_structure(factory)
    with violated(*message):
        check_cell(factory)


def test_a_cut_that_is_small_is_seen():
    # 6e-5 is what a check on a random direction let pass.
    small = lambda value: 6e-5 * cut(value) + (1 - 6e-5) * value  # noqa: E731
    with violated("gradient", ".*", ".* in reverse mode, and 12 such entries"):
        check_cell(whole(lambda: {"cut": small}))


@pytest.mark.parametrize("x64", [True, False])
def test_a_cut_is_seen_with_x64_off_and_let_pass_where_it_is_meant(x64):
    factory = whole(lambda: {"cut": cut})
    with jax.enable_x64(x64):
        with violated("gradient", ".*", "0 in reverse mode"):
            check_cell(factory)
        check_cell(factory, gradients=False)
        assert jnp.zeros(()).dtype == (jnp.float64 if x64 else jnp.float32)


def test_modes_must_agree_where_the_gradient_is_replaced_on_purpose():
    @jax.custom_jvp
    def uneven(value):
        return jnp.tanh(value)

    uneven.defjvp(lambda primals, tangents: (jnp.tanh(primals[0]), 0.5 * tangents[0]))
    factory = whole(lambda: {"act": uneven})
    check_cell(factory, gradients=False)
    with violated("gradient", ".*", ".*"):
        check_cell(factory)
