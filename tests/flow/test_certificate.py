"""Spectral norms and their certified bounds, on products that are hard for a search."""

import functools
from typing import NamedTuple

import adversaries
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from products import as_inputs
from products import given as given_cell
from truths import (
    ROUNDING,
    TOLERANCE,
    beyond,
    error,
    fail_if_any,
    faults,
    generator,
    log_norms_by_numpy,
    log_norms_by_svd,
    pulled_products,
)

from gradflow import flow
from gradflow.cell import Cell
from gradflow.cells import lstm, rnn

SIZE, NUM_STEPS = 64, 48
"""Above the size up to which every norm is decomposed, and a power of four."""


class Products(NamedTuple):
    """Many products of one size, and the log norms that are true of them."""

    names: list[str]
    inputs: jax.Array
    """(products, T, n²), in the order of time."""
    truths: np.ndarray
    """(products, T + 1)."""

    def each(self, measure):
        """What is measured of each, one after the other in one program."""
        size = round(self.inputs.shape[-1] ** 0.5)
        return program(measure, size)(self.inputs)

    def errors(self, measured) -> dict[str, float]:
        return dict(zip(self.names, map(error, measured, self.truths), strict=True))

    def only(self, chosen: list[str]) -> "Products":
        at = [self.names.index(name) for name in chosen]
        return Products(chosen, self.inputs[np.array(at)], self.truths[at])


@functools.cache
def program(measure, size: int):
    def one(inputs):
        return measure(given_cell(size), {}, inputs, carry=jnp.zeros(size, inputs.dtype))

    return jax.jit(lambda inputs: jax.lax.map(one, inputs))


def made(names, jacobians, dtype, truths=None) -> Products:
    inputs = jnp.stack([as_inputs(one[::-1]) for one in jacobians]).astype(dtype)
    return Products(list(names), inputs, truths)


@functools.cache
def families(dtype: str) -> Products:
    """One of each family."""
    names = adversaries.of_size(SIZE)
    if dtype == "float32":  # which has no factors of 1e-300 or 1e200
        names = [name for name in names if name not in ("falling", "rising", "asleep")]
    jacobians = [adversaries.FAMILIES[name](generator(name), NUM_STEPS, SIZE) for name in names]
    if dtype == "float64":
        return made(names, jacobians, dtype, np.stack(list(map(log_norms_by_numpy, jacobians))))
    # In float32 a late direction of size 1e-3 has been rounded by 1e-4 of itself before it leads.
    # What must be within the tolerance is the norm of the product that the library holds, so the
    # truth is an SVD, in float64, of the same float32 products.
    found = made(names, jacobians, dtype)
    return found._replace(truths=truths_of_pulled(found))


def pulled(cell, params, inputs, carry):
    return pulled_products(cell, ("carry", "carry"), params, inputs, carry)


def truths_of_pulled(products: Products) -> np.ndarray:
    parts = products.each(pulled)
    return np.stack([log_norms_by_svd(*one) for one in zip(*parts, strict=True)])


@functools.cache
def certificates(dtype: str):
    return families(dtype).each(flow.norm_certificate)


@functools.cache
def norms(dtype: str):
    return families(dtype).each(flow.log_norms)


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_every_family_is_within_the_tolerance_of_an_svd(dtype):
    assert norms(dtype).dtype == dtype
    errors = families(dtype).errors(norms(dtype))
    fail_if_any({name: beyond(TOLERANCE[dtype], found) for name, found in errors.items()})


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_every_family_lies_within_its_bounds(dtype):
    found = certificates(dtype)
    assert found.lower.dtype == found.upper.dtype == dtype
    np.testing.assert_array_equal(found.lower, norms(dtype))
    offenders = {}
    for i, name in enumerate(families(dtype).names):
        one = jax.tree.map(lambda leaf, i=i: leaf[i], found)
        offenders[name] = faults(one, families(dtype).truths[i], TOLERANCE[dtype], ROUNDING[dtype])
    fail_if_any(offenders)


def test_every_stage_certifies_some_norm():
    """A stage that never decides here would not be tested by what is above."""
    assert {0, 1, 2, 3, 4} <= set(np.unique(certificates("float64").stage))


def test_an_exact_zero_is_stage_0_between_two_bounds_of_minus_infinity():
    gone = np.isneginf(families("float64").truths)
    assert gone.any()
    found = certificates("float64")
    for bound in found[:2]:
        np.testing.assert_array_equal(np.isneginf(bound), gone)
    np.testing.assert_array_equal(np.asarray(found.stage)[gone], 0)


@pytest.mark.parametrize(("dtype", "depth"), [("float64", 19), ("float32", 5)])
def test_a_late_direction_in_exact_arithmetic_has_its_closed_form(dtype, depth):
    rng = generator(f"dyadic {dtype}")
    cases = [adversaries.dyadic_late(rng, NUM_STEPS, SIZE, depth) for _ in range(3)]
    jacobians, truths = zip(*cases, strict=True)
    products = made(["one", "two", "three"], jacobians, dtype, np.stack(truths))
    errors = products.errors(products.each(flow.log_norms))
    fail_if_any({name: beyond(TOLERANCE[dtype], found) for name, found in errors.items()})


@pytest.mark.parametrize("measure", ["log_norms", "norm_certificate"])
def test_a_batch_of_easy_and_hard_products(measure):
    names = families("float64").names
    chosen = [names[i] for i in generator("batch").permutation(len(names))[:6]]
    batch = families("float64").only(list(dict.fromkeys([*chosen, "identity"])))
    of_one = functools.partial(getattr(flow, measure), given_cell(SIZE), {})
    measured = jax.jit(jax.vmap(of_one))(batch.inputs)
    errors = batch.errors(measured if measure == "log_norms" else measured.lower)
    fail_if_any({name: beyond(1e-9, found) for name, found in errors.items()})


def test_borders_of_chunks_inside_hard_stretches():
    names = [n for n in families("float64").names if n.startswith(("late", "one_takes", "swap"))]
    hard = families("float64").only([*names, "cut", "noisy_orthogonal"])
    chunk_steps = int(generator("chunks").integers(5, 16))
    measure = flow.in_chunks(flow.log_norms, chunk_steps=chunk_steps)
    measured = [measure(given_cell(SIZE), {}, inputs) for inputs in hard.inputs]
    errors = hard.errors(measured)
    fail_if_any({name: beyond(1e-9, found) for name, found in errors.items()})


def nan_where_flagged(size: int) -> Cell:
    """s' = X s, with a derivative of NaN, but no NaN in s', where the last input is set."""

    def step(params, s, x):
        root = jnp.sqrt(jnp.where(x[-1] > 0, s @ s, 1))  # not differentiable at s = 0
        s = x[:-1].reshape(size, size) @ s + jnp.where(x[-1] > 0, root, 0)
        return s, s

    return Cell(init=lambda key: {}, step=step, initial_carry=lambda: jnp.zeros(size))


def test_nan_from_the_lag_on_at_which_a_derivative_is_nan():
    name = "hopping, rotated"
    hard = families("float64").only([name])
    at = int(generator("nan").integers(1, NUM_STEPS))  # steps before it
    flags = jnp.zeros((NUM_STEPS, 1)).at[at].set(1)
    inputs = jnp.concatenate([hard.inputs[0], flags], axis=1)
    truth = np.where(np.arange(NUM_STEPS + 1) >= NUM_STEPS - at, np.nan, hard.truths[0])
    found = flow.norm_certificate(nan_where_flagged(SIZE), {}, inputs)
    fail_if_any({"bounds": faults(found, truth, 1e-9, 1e-10)})
    measured = flow.log_norms(nan_where_flagged(SIZE), {}, inputs)
    fail_if_any({"norms": beyond(1e-9, error(measured, truth))})


def test_bounds_of_a_part_of_a_padded_sequence(key):
    cell = lstm(3, 24)
    params, inputs = cell.init(key), jax.random.normal(key, (9, 3))
    carry = jax.tree.map(lambda leaf: leaf + 0.5, cell.initial_carry())
    options = {"source": "c", "target": "h", "carry": carry}
    for padding in ({"lengths": 6}, {"mask": jnp.arange(9) % 4 != 1}):
        found = flow.norm_certificate(cell, params, inputs, **options, **padding)
        assert isinstance(found, flow.NormCertificate)
        norms = flow.log_norms(cell, params, inputs, **options, **padding)
        np.testing.assert_allclose(found.lower, norms, rtol=0, atol=1e-12)
        assert (found.upper >= found.lower).all()


def test_a_small_block_is_decomposed_without_a_search(key):
    cell = rnn(3, 8)
    inputs = jax.random.normal(key, (9, 3))
    np.testing.assert_array_equal(flow.norm_certificate(cell, cell.init(key), inputs).stage, 0)


@pytest.mark.parametrize("measure", ["norm_certificate", "norm_map_certificate"])
def test_an_unknown_block_is_refused(key, measure):
    cell = rnn(3, 4)
    with pytest.raises(ValueError, match="got 'z'"):
        getattr(flow, measure)(cell, cell.init(key), jnp.zeros((5, 3)), source="z")


# Any list of matrices, with entries of a few kinds.

STEPS = 12
KINDS = (
    *("dense", "sparse", "graded", "signs", "diagonal", "rank one"),
    *("repeated", "transposed", "tiny", "huge"),
)


def of_kind(kind: str, rng: np.random.Generator, before: np.ndarray) -> np.ndarray:
    size = len(before)
    normal = rng.normal(size=(size, size))
    grades = 10 ** rng.uniform(-6, 0, (2, size))
    return {
        "dense": normal,
        "sparse": np.where(rng.random((size, size)) < 2 / size, normal, 0),
        "graded": normal * grades[0] * grades[1][:, None],
        "signs": rng.choice([-1.0, 0.0, 1.0], size=(size, size)),
        "diagonal": np.diag(grades[0]),
        "rank one": np.outer(normal[0], normal[1]),
        "repeated": before,
        "transposed": before.T,
        "tiny": 1e-150 * normal,
        "huge": 1e150 * normal,
    }[kind]


@pytest.mark.parametrize("size", [17, 40])
@settings(max_examples=25, deadline=None)
@given(
    kinds=st.lists(st.sampled_from(KINDS), min_size=1, max_size=STEPS),
    part=st.integers(2, 40),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_list_of_matrices(size, kinds, part, seed):
    rng = np.random.default_rng(seed)
    used = min(part, size)
    jacobians = np.zeros((STEPS, size, size))  # what is not used of them stays zero
    before = np.eye(used)
    for at, kind in enumerate(kinds):
        before = of_kind(kind, rng, before)
        jacobians[at, :used, :used] = before
    jacobians[len(kinds) :] = np.eye(size)
    products = made(["these"], [jacobians], "float64")
    products = products._replace(truths=truths_of_pulled(products))
    found = jax.tree.map(lambda leaf: leaf[0], products.each(flow.norm_certificate))
    assert not faults(found, products.truths[0], 1e-9, 1e-10)
    assert products.errors(products.each(flow.log_norms))["these"] <= 1e-9
