"""The spectral norms of the repository's cells, and of those that were once measured wrongly."""

from collections.abc import Callable
from typing import NamedTuple

import adversaries
import gains
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from truths import beyond, error, fail_if_any, faults, generator, log_norms_by_svd, pulled_products

from gradflow import flow
from gradflow.cell import Cell, Params, whole_carry
from gradflow.cells import CELLS, resolve
from gradflow.numerics.spectral import start_vectors

HIDDEN, WHOLE = ("h", "h"), ("carry", "carry")
SIZES = (17, 24, 48, 64, 128)
LARGEST = 400
"""Entries of a carry."""
DEVIATIONS = (1e-4, 1e-2, 1.0, 10.0)


class Case(NamedTuple):
    """What is measured."""

    cell: Cell
    params: Params
    inputs: jax.Array
    blocks: tuple[str, str]
    """Source and target."""
    lags: slice = slice(None)
    """Those that are held against an SVD: all, or where something happens in a large product."""

    def faults(self) -> dict[str, list[str] | float | None]:
        source, target = self.blocks
        products = pulled_products(self.cell, self.blocks, self.params, self.inputs)
        truth = log_norms_by_svd(*(np.asarray(part)[self.lags] for part in products))
        measured, bounds = (
            measure(self.cell, self.params, self.inputs, source=source, target=target)
            for measure in (flow.log_norms, flow.norm_certificate)
        )
        bounds = jax.tree.map(lambda leaf: leaf[self.lags], bounds)
        return {
            "norms": beyond(1e-9, error(measured[self.lags], truth)),
            "bounds": faults(bounds, truth, 1e-9, 1e-10),
        }


# Products in a basis U, with gains by lag: the state is turned, weighed and turned back.


def turned(basis: np.ndarray, by_lag: np.ndarray, lags: slice = slice(None)) -> Case:
    """h' = U (x ∘ Uᵀ h), with the gains as its inputs in the order of time."""

    def step(params: Params, h: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        h = params["U"] @ (x * (params["U"].T @ h))
        return h, h

    cell = Cell(lambda key: {}, step, lambda: jnp.zeros(len(basis)))
    return Case(cell, {"U": jnp.asarray(basis)}, jnp.asarray(by_lag[::-1]), HIDDEN, lags)


def rotation(size: int) -> np.ndarray:
    return adversaries.rotations(generator(f"rotation {size}"), 1, size)[0]


def late(size: int) -> np.ndarray:
    """The fifth direction is 1e-6 from lag 1 on, and grows from lag 60 on."""
    by_lag = np.full((100, size), 0.9)
    by_lag[:, :4] = 1
    by_lag[0, 4:] = 1e-6
    by_lag[59:, 4] = 2
    return by_lag


def random_gains(name: str) -> np.ndarray:
    return getattr(gains, name)(generator(f"gains {name}"), 100, 64)


def unseen() -> Case:
    """The last direction leads, and the search's first vectors have no part in it."""
    start = np.asarray(start_vectors(64, np.dtype("float64")).vectors).T
    rest = generator("rest").normal(size=(64, 64 - start.shape[1]))
    by_lag = np.full((40, 64), 0.99)
    by_lag[:, -1] = 1
    return turned(np.linalg.qr(np.concatenate([start, rest], axis=1))[0], by_lag)


def of_cell(
    spec: str, size: int, blocks: tuple[str, str], deviation: float = 1, num_steps: int = 100
) -> Case:
    cell = resolve(spec)(8, size)
    inputs = deviation * jax.random.normal(jax.random.key(100), (num_steps, 8))
    return Case(cell, cell.init(jax.random.key(0)), inputs, blocks)


KNOWN: dict[str, Callable[[], Case]] = {
    "late, 32": lambda: turned(rotation(32), late(32)),
    "late, 256": lambda: turned(rotation(256), late(256), slice(84, None)),
    "late, Hadamard 128": lambda: turned(adversaries.hadamard(128), late(128), slice(80, None)),
    "swap, 64": lambda: turned(rotation(64), random_gains("swap")),
    "walk, 64": lambda: turned(rotation(64), random_gains("walk")),
    "drift, 64": lambda: turned(rotation(64), random_gains("drift")),
    "unseen": unseen,
    "unicornn": lambda: of_cell("unicornn", 64, WHOLE),
    "masked": lambda: of_cell("masked(cell='lstm', pattern='direct')", 48, WHOLE),
    "nnrnn": lambda: of_cell("nnrnn(activation='tanh')", 64, HIDDEN, 0.01),
    "orthogonal": lambda: of_cell("orthogonal(activation='tanh')", 64, HIDDEN),
}
"""Cases in which the norms of an earlier search were wrong by up to 2 nats."""


@pytest.mark.parametrize("name", KNOWN)
def test_the_known_cases(name):
    fail_if_any(KNOWN[name]().faults())


def sampled(
    name: str, size: int, rng: np.random.Generator, largest: int = LARGEST
) -> dict[str, Case]:
    """A cell of a size with each of the deviations and blocks; nnRNN's size must be even.

    The size of a cell whose state is a matrix is reduced: its products are decomposed at each lag.
    """
    cell = CELLS[name](8, size + (name == "nnrnn" and size % 2))
    while whole_carry(cell.initial_carry()).size > largest:
        size //= 2
        cell = CELLS[name](8, size)
    key = jax.random.key(int(rng.integers(2**31)))
    noise, params = jax.random.normal(key, (40, 8)), cell.init(key)
    is_all_hidden = len(jax.tree.leaves(cell.initial_carry())) == 1
    return {
        f"{name} {size}, deviation {deviation:g}, {'→'.join(blocks)}": Case(
            cell, params, deviation * noise, blocks
        )
        for deviation in DEVIATIONS
        for blocks in ([HIDDEN] if is_all_hidden else [HIDDEN, WHOLE])
    }


@pytest.mark.parametrize("number", range(2))
def test_a_cell_of_the_repository_chosen_at_random(number):
    rng = generator(f"cell {number}")
    cases = sampled(rng.choice(sorted(CELLS)), int(rng.choice(SIZES)), rng, largest=LARGEST // 2)
    name = rng.choice(list(cases))
    fail_if_any({f"{name}, {what}": found for what, found in cases[name].faults().items()})


@pytest.mark.slow  # a cell eight ways is compiled and decomposed: ten seconds
@pytest.mark.parametrize("name", sorted(CELLS))
def test_every_cell_of_the_repository(name):
    """At another size in each run: five runs see them all."""
    rng = generator(f"every {name}")
    found = {k: c.faults() for k, c in sampled(name, int(rng.choice(SIZES)), rng).items()}
    fail_if_any({key: one for key, one in found.items() if any(one.values())})
