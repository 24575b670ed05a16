"""What holds for every measurement: its numbers on a deep net, its transformations, its errors.

One cell serves them all: a stack of three layers, of which the middle one has three states. A
flag in its input says what a step does: 1 cuts every gradient through it, 2 makes its carry NaN. So
one program a measurement sees a whole trajectory, a cut one and a broken one.
"""

import functools
import inspect
import re
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from products import step_jacobians

from gradflow import flow
from gradflow.cell import Cell
from gradflow.cells import lstm, rnn
from gradflow.cells.stack import stack
from gradflow.unroll import unroll

T = 6
LAGS = (0, 2, 6)
CUT = 3  # the step that is cut
NEVER, STOP, BREAK = 0.0, 1.0, 2.0


class Three(NamedTuple):
    h: jax.Array
    c: jax.Array
    m: jax.Array


def three_states():
    """Two units with an output, a cell and a slow state, each of which depends on the others."""

    def gates(params, s, x):
        return {"f": jax.nn.sigmoid(params["f"] @ jnp.concatenate([s.h, s.m, x]))}

    def step(params, s, x):
        f = gates(params, s, x)["f"]
        c = f * s.c + (1 - f) * jnp.tanh(params["W_h"] @ s.h + x + s.m)
        m = 0.7 * s.m + 0.3 * jnp.tanh(params["W_c"] @ s.c)
        s = Three(jnp.tanh(c) + 0.1 * s.h, c, m)
        return s, s.h

    def init(key):
        shapes = {"f": (2, 6), "W_h": (2, 2), "W_c": (2, 2)}
        keys = jax.random.split(key, 3)
        return {
            name: jax.random.normal(k, shape)
            for k, (name, shape) in zip(keys, shapes.items(), strict=True)
        }

    return Cell(init, step, lambda: Three(*jnp.zeros((3, 2))), lambda s: s.h, gates)


@functools.cache
def deep() -> Cell:
    inner = stack([rnn(2, 2), three_states(), rnn(2, 2)])

    def step(params, s, x):
        stopped = jax.tree.map(jax.lax.stop_gradient, s)
        s = jax.tree.map(lambda a, b: jnp.where(x[-1] == STOP, a, b), stopped, s)
        s, _ = inner.step(params, s, x[:-1])
        s = jax.tree.map(lambda leaf: jnp.where(x[-1] == BREAK, jnp.nan, leaf), s)
        return s, inner.hidden(s)

    def gates(params, s, x):
        return inner.gates(params, s, x[:-1])

    return inner._replace(step=step, gates=gates)


CELL, LSTM = deep(), lstm(3, 3)


def weighted(outputs):
    """Every output counts, each with a weight and a curvature of its own."""
    return jnp.sum(losses(outputs))


def losses(outputs):
    """One loss a step, the t-th of h_t."""
    return jnp.sum(jnp.sin(outputs + 0.3), axis=1) * jnp.arange(1.0, len(outputs) + 1)


OPTIONS = {
    "log_norms": {"source": "1.c", "target": "carry"},
    "log_norms frobenius": {"source": "carry", "norm": "frobenius"},
    "norm_certificate": {"source": "1.c", "target": "carry"},
    "log_norm_map": {"source": "1.m", "target": "h"},
    "norm_map_certificate": {"source": "1.m", "target": "h"},
    "log_singular_values": {"source": "carry", "target": "1.h"},
    "effective_rank": {"source": "carry", "target": "1.h"},
    "leading_singular_values": {"lags": LAGS, "source": "1.m"},
    "lyapunov_exponents": {"qr_every": 1},
    "log_adjoint_norms": {"source": "1.m"},
}
NEEDS = {"loss": {"loss": weighted}, "losses": {"losses": losses}}


def measurement(name):
    entry = flow.CATALOGUE[name.split()[0]]
    return entry, NEEDS.get(entry.needs, {}) | OPTIONS.get(name, {})


MEASURES = {name: measurement(name) for name in [*flow.CATALOGUE, "log_norms frobenius"]}
OF_LSTM = [name for name, entry in flow.CATALOGUE.items() if entry.needs == "lstm"]
OF_ALL = [
    *["log_norms", "log_norms frobenius", "norm_certificate", "log_norm_map"],
    *["norm_map_certificate", "log_singular_values", "leading_singular_values", "effective_rank"],
    *["lyapunov_exponents", "adjoints", "log_adjoint_norms", "components", "component_map"],
    *["component_gradients", "gates", "saturation"],
]  # The others have their references in tests of their own.


def cell_of(name):
    return LSTM if name in OF_LSTM else CELL


def measure(name, params, inputs, **options):
    function, own = MEASURES[name]
    return function(cell=cell_of(name), params=params, inputs=inputs, **own | options)


PARAMS = {cell: cell.init(jax.random.key(0)) for cell in (CELL, LSTM)}


def inputs_with(flag=NEVER, step=CUT):
    """Inputs with a flag at one step, counted from 1."""
    inputs = jax.random.normal(jax.random.key(1), (T, 3)).at[:, -1].set(NEVER)
    return inputs.at[step - 1, -1].set(flag)


@functools.cache
def plain(name, flag=NEVER, step=CUT):
    """What is measured of one sequence, with nothing around it."""
    inputs = inputs_with(flag, step)
    if name in OF_LSTM and flag == BREAK:
        inputs = inputs.at[step - 1].set(jnp.nan)
    return measure(name, PARAMS[cell_of(name)], inputs)


class Parts(NamedTuple):
    """What all references are made of, in NumPy."""

    carries: object
    inputs: np.ndarray
    jacobians: np.ndarray

    def product(self, t, k):
        """P(t, k) = J_t ... J_{k+1}."""
        return np.linalg.multi_dot([np.eye(10), np.eye(10), *self.jacobians[k:t][::-1]])


@functools.cache
def parts(flag):
    params, inputs = PARAMS[CELL], inputs_with(flag)
    carries = unroll(CELL, params, inputs).carries
    return Parts(carries, inputs, step_jacobians(CELL, params, inputs))


BLOCKS = {
    "carry": np.eye(10),
    "1.h": np.eye(10)[2:4],
    "1.c": np.eye(10)[4:6],
    "1.m": np.eye(10)[6:8],
    "h": np.eye(10)[8:],
}


def blocks_by_lag(p, source, target):
    return [BLOCKS[target] @ p.product(T, T - lag) @ BLOCKS[source].T for lag in range(T + 1)]


def adjoints_by_hand(p, outputs_weights):
    """a_k = a_{k+1} J_{k+1} + ∂L/∂h_k for k = 0 ... T, from ∂L/∂h_1 ... ∂L/∂h_T."""
    a, found = np.zeros(10), []
    for k in range(T, -1, -1):
        a = a + (outputs_weights[k - 1] @ BLOCKS["h"] if k > 0 else 0)
        found.append(a)
        a = a @ p.jacobians[k - 1] if k > 0 else a
    return np.array(found[::-1])


@functools.cache
def immediate(flag):
    """∂⁺s_k/∂θ for k = 1 ... T."""
    before = jax.tree.map(lambda leaf: leaf[:-1], parts(flag).carries)

    def step(params, s, x):
        return ravel_pytree(CELL.step(params, s, x)[0])[0]

    by_params = jax.jit(jax.vmap(jax.jacobian(step), (None, 0, 0)))
    return by_params(PARAMS[CELL], before, parts(flag).inputs)


def cotangents(p):
    return np.asarray(jax.grad(weighted)(jax.vmap(CELL.hidden)(p.carries)[1:]))


def contributions(flag, weights):
    a = adjoints_by_hand(parts(flag), weights)[1:]
    return jax.tree.map(
        lambda leaf: np.einsum("ks,ks...->k...", a, np.asarray(leaf)), immediate(flag)
    )


def log_sizes(tree):
    return jax.tree.map(lambda leaf: log_norm(leaf.reshape(len(leaf), -1), axis=1), tree)


def log_norm(array, order=None, axis=None):
    with np.errstate(divide="ignore"):
        return np.log(np.linalg.norm(array, order, axis))


def reference(name, flag):
    """The same from the step Jacobians and plain products."""
    p = parts(flag)
    _, own = MEASURES[name]
    source, target = own.get("source", "h"), own.get("target", "h")
    if name == "norm_certificate":
        return 2 * (reference("log_norms", flag),)
    if name == "norm_map_certificate":
        return 2 * (reference("log_norm_map", flag),)
    if name == "log_norm_map":
        rows = np.full((T + 1, T + 1), np.nan)
        for t in range(T + 1):
            for k in range(t + 1):
                block = BLOCKS[target] @ p.product(t, k) @ BLOCKS[source].T
                rows[t, k] = log_norm(block, 2)
        return rows
    if name.startswith("log_norms"):
        order = 2 if "norm" not in own else None
        return np.array([log_norm(block, order) for block in blocks_by_lag(p, source, target)])
    if name == "effective_rank":
        values = np.exp(reference("log_singular_values", flag))
        with np.errstate(invalid="ignore"):  # a block that is exactly zero has no rank: 0 / 0
            fractions = values / values.sum(axis=1, keepdims=True)
        return np.exp(-np.sum(fractions * np.log(np.where(fractions > 0, fractions, 1)), axis=1))
    if name.endswith("singular_values"):
        found = [np.linalg.svd(b, compute_uv=False) for b in blocks_by_lag(p, source, target)]
        with np.errstate(divide="ignore"):
            return np.log(found)[list(own.get("lags", range(T + 1)))]
    if name == "lyapunov_exponents":
        noise = jax.random.normal(jax.random.key(0), (10, 10), jnp.float32)
        frame, growths = np.linalg.qr(np.asarray(noise, float).T)[0], []
        for jacobian in p.jacobians:
            frame, r = np.linalg.qr(jacobian @ frame)
            with np.errstate(divide="ignore"):
                growths.append(np.log(np.abs(np.diag(r))))
        return np.cumsum(growths, axis=0) / np.arange(1, T + 1)[:, None]
    if name == "component_map":
        per_step = [cotangents(p) * (np.arange(T) == t)[:, None] for t in range(T)]
        rows = [log_sizes(contributions(flag, weights)) for weights in per_step]
        past = np.tri(T, dtype=bool)
        return jax.tree.map(lambda *leaves: np.where(past, np.stack(leaves), np.nan), *rows)
    if name == "adjoints":
        return adjoints_by_hand(p, cotangents(p))
    if name == "log_adjoint_norms":
        return log_norm(adjoints_by_hand(p, cotangents(p)) @ BLOCKS[source].T, axis=1)
    if name == "gates":
        before = jax.tree.map(lambda leaf: leaf[:-1], p.carries)
        return jax.vmap(lambda s, x: CELL.gates(PARAMS[CELL], s, x))(before, p.inputs)
    if name == "saturation":
        return {
            gate: np.stack([np.mean(a < 0.1, axis=1), np.mean(a > 0.9, axis=1)], axis=1)
            for gate, a in reference("gates", flag).items()
        }
    found = contributions(flag, cotangents(p))
    return log_sizes(found) if name == "components" else found


def as_reference(name, found):
    """What is measured in the form of its reference."""
    if name == "lyapunov_exponents":
        return found.running
    if name.endswith("certificate"):
        return found.lower, found.upper
    if name == "adjoints":
        return jax.vmap(lambda s: ravel_pytree(s)[0])(found)
    return found


def assert_close(found, expected, **tolerance):
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, **{"rtol": 1e-8, "atol": 1e-9} | tolerance)


@pytest.mark.parametrize("flag", [NEVER, STOP], ids=["whole", "cut"])
@pytest.mark.parametrize("name", OF_ALL)
def test_it_equals_plain_products_of_the_step_jacobians(name, flag):
    """Through a step that is cut nothing comes: -inf, or zero, from exactly its lag on."""
    found = as_reference(name, plain(name, flag))
    assert_close(found, reference(name, flag))
    zero = [np.isneginf(leaf).any() or (leaf == 0).any() for leaf in jax.tree.leaves(found)]
    assert any(zero) or flag == NEVER or name in ("gates", "effective_rank")


@pytest.mark.parametrize("name", MEASURES)
def test_under_jit_and_vmap_it_is_that_of_each_sequence(name):
    batch = jnp.stack([inputs_with(), inputs_with(STOP)])
    mapped = jax.jit(jax.vmap(lambda x: measure(name, PARAMS[cell_of(name)], x)))(batch)
    for b, flag in enumerate([NEVER, STOP]):
        one = jax.tree.map(lambda leaf, b=b: leaf[b], mapped)
        assert_close(one, plain(name, flag))


@pytest.mark.parametrize("name", MEASURES)
def test_float32_equals_float64_to_its_rounding(name):
    params = jax.tree.map(jnp.float32, PARAMS[cell_of(name)])
    found = measure(name, params, jnp.float32(inputs_with()))
    kept, expected = as_reference(name, found), as_reference(name, plain(name))
    assert {leaf.dtype for leaf in jax.tree.leaves(kept)} == {jnp.dtype("float32")}
    assert_close(kept, expected, rtol=1e-4, atol=1e-4)


def nan_in(variable, entry, step):
    """What is NaN when the trajectory is from a step on, along the dimensions that count time."""
    lags, steps = np.arange(T + 1), np.arange(1, T + 1)
    t, k = np.meshgrid(lags, lags, indexing="ij")
    pairs = (k > t) | ((t >= step) & (t > k))
    by_dimension = {
        "lag": lags >= 1,
        "at_lag": np.array(LAGS) >= 1,
        "later": pairs,
        "loss_step": pairs[1:, :-1],  # step k is in its component
        "earlier": lags < T,
        "counted_step": steps >= step,
        "step": steps >= (1 if entry.needs == "loss" else step),
    }
    # Anything else goes through the last step, which is not finite.
    return by_dimension.get(variable.dims[0], np.ones(T, bool))


@pytest.mark.parametrize("step", [CUT, T])
@pytest.mark.parametrize("name", MEASURES)
def test_it_is_nan_through_a_carry_that_is_not_finite(name, step):
    """The derivative of what makes it so is 0 here: nothing but the carry itself would tell."""
    entry = flow.CATALOGUE[name.split()[0]]
    found, whole = (plain(name, *flag) for flag in ((BREAK, step), ()))
    found, whole = ((one,) if len(entry.variables) == 1 else one for one in (found, whole))
    for variable, *parts in zip(entry.variables, found, whole, strict=True):
        nan = nan_in(variable, entry, step)
        for leaf, intact in zip(*map(jax.tree.leaves, parts), strict=True):
            if variable.name.endswith("stage"):
                assert (leaf[nan] == -1).all()
                continue
            assert variable.dims[0] == "exponent" or np.isnan(leaf[nan]).all()
            if entry.needs != "loss" and variable.dims[0] != "exponent":
                np.testing.assert_allclose(leaf[~nan], intact[~nan], rtol=1e-9, atol=1e-9)


SEQUENCE = "Expected inputs of shape .T, input.*, got shape .6,."
CARRY = r"Expected a carry like that of cell.initial_carry\(\), of shapes .*got h \(5,\), c \(5,\)"
WIDTH = r"Expected inputs of shape \(T, input\) with 3 features, .* got shape \(6, 9\)\. Give"
WIDTH += "|that the cell's step takes, .* x of .*9.* inputs of the cell's sizes"
OTHERS = (
    "Expected the parameters of this cell, in which .* has shape .*, got .* Give the parameters"
)
FLOATS = "Expected floating inputs, got int64. Convert them"
BAD = {
    "no such source": ({"source": "z"}, ValueError, "one of h, carry, .*got 'z'"),
    "no such target": ({"target": "3.c"}, ValueError, "one of h, carry, .*got '3.c'"),
    "unknown norm": (
        {"norm": "nuclear"},
        ValueError,
        "Expected norm=.*, got 'nuclear'",
    ),
    "longer than T": ({"lengths": 7}, ValueError, "between 0 and T = 6, got 7. "),
    "a negative length": ({"lengths": -1}, ValueError, "T = 6, got -1. "),
    "a loss of a vector": (
        {"loss": lambda h: h[0]},
        ValueError,
        "loss of shape .* Sum it over",
    ),
    "a loss of integers": (
        {"loss": lambda h: jnp.argmax(h)},
        TypeError,
        "Expected a loss that returns a fl",
    ),
    "losses of a scalar": ({"losses": jnp.sum}, ValueError, "Expected a loss of shape .6,. from"),
    "an integer carry": ({"carry": int}, TypeError, "Expected a carry of floating arrays, got"),
    "another carry": ({"carry": 5}, ValueError, CARRY),
    "one number a step": ({"inputs": jnp.zeros(6)}, ValueError, SEQUENCE),
    "no step": (
        {"inputs": jnp.zeros((0, 3))},
        ValueError,
        "at least one step, got T = 0|lags within 0 ... T = 0, got",
    ),
    "integers": ({"inputs": jnp.zeros((6, 3), int)}, TypeError, FLOATS),
    "other inputs": ({"inputs": jnp.zeros((6, 9))}, ValueError, WIDTH),
    "other parameters": ({"params": 5}, ValueError, OTHERS),
    "a key": ({"params": jax.random.key(0)}, TypeError, "Expected parameters, got a random key"),
}


def applies(name, case):
    """Whether a measurement has the arguments of a case."""
    return set(BAD[case][0]) <= set(inspect.signature(MEASURES[name][0].function).parameters)


def bad_arguments(name, case):
    if case == "other parameters":
        return {"params": jax.tree.map(lambda leaf: jnp.tile(leaf, 2), PARAMS[cell_of(name)])}
    if case == "an integer carry":
        return {"carry": jax.tree.map(lambda leaf: leaf.astype(int), cell_of(name).initial_carry())}
    if case == "another carry":
        return {"carry": lstm(3, 5).initial_carry()}
    return BAD[case][0]


@pytest.mark.parametrize("name", MEASURES)
def test_bad_arguments_raise_before_anything_is_compiled(name):
    entry, own = MEASURES[name]
    given = {"cell": cell_of(name), "params": PARAMS[cell_of(name)], "inputs": inputs_with()} | own

    def trace(case):
        # Without the tests' own check of types, which would be the first to refuse it.
        return inspect.unwrap(entry.function)(**given | bad_arguments(name, case))

    offenders = {}
    for case in filter(functools.partial(applies, name), BAD):
        _, error, message = BAD[case]
        try:
            jax.eval_shape(functools.partial(trace, case))  # compiles nothing
            offenders[case] = "nothing is raised"
        except Exception as found:
            if not isinstance(found, error) or not re.search(message, str(found)):
                offenders[case] = repr(found)
    assert offenders == {}
