"""Families of matrix products on which a search for the spectral norm can go wrong unnoticed.

A family gives T step Jacobians M_1 ... M_T in the order of the lag (M_1 belongs to the last step),
so that the product at lag l is M_1 M_2 ... M_l. Most are built from gains: the product at lag l is
V_l diag(g_1 ... g_l) W_lᵀ with orthogonal V_l and W_l, and the basis is one of `BASES`.

The rounding of a product is about 1e-15 of its norm, in every direction. A direction that is
smaller than the norm by a factor d and leads later has been rounded by 1e-15/d of itself. The
families keep d above about 1e-5, so that two correct programs agree to 1e-10. `dyadic_late`
has no such limit, because nothing in it is rounded.
"""

from collections.abc import Callable

import numpy as np
from gains import GAINS, Rng, equal, hopping, near_degenerate, one_takes_over, power, walk


def rotations(rng: Rng, num: int, size: int) -> np.ndarray:
    """Orthogonal matrices (num, size, size)."""
    return np.linalg.qr(rng.normal(size=(num, size, size)))[0]


def hadamard(size: int) -> np.ndarray:
    """The symmetric orthogonal matrix with entries ±1/√size; the size is a power of two."""
    signs = np.ones((1, 1))
    while len(signs) < size:
        signs = np.block([[signs, signs], [signs, -signs]])
    return signs / np.sqrt(size)


# Bases: step Jacobians (T, n, n) from gains.


def rotated(rng: Rng, gains: np.ndarray) -> np.ndarray:
    """One random basis: M_l = U diag(g_l) Uᵀ."""
    (basis,) = rotations(rng, 1, gains.shape[1])
    return basis * gains[:, None] @ basis.T


def in_hadamard(rng: Rng, gains: np.ndarray) -> np.ndarray:
    """Every direction has the same size in every row: the diagonal of A Aᵀ says nothing."""
    basis = hadamard(gains.shape[1])[:, rng.permutation(gains.shape[1])]
    return basis * gains[:, None] @ basis.T


def permuted(rng: Rng, gains: np.ndarray) -> np.ndarray:
    """Decoupled units, relabelled at each step: no path by which one could find another."""
    num_steps, size = gains.shape
    order = rng.permuted(np.tile(np.arange(size), (num_steps + 1, 1)), axis=1)
    right = np.eye(size)[order] * rng.choice([-1, 1], size=(num_steps + 1, size, 1))
    return right[:-1] * gains[:, None] @ right[1:].swapaxes(1, 2)


def right_turning(rng: Rng, gains: np.ndarray) -> np.ndarray:
    """The right singular vectors are others at each lag: M_l = W_{l-1} diag(g_l) W_lᵀ."""
    right = rotations(rng, len(gains) + 1, gains.shape[1])
    return right[:-1] * gains[:, None] @ right[1:].swapaxes(1, 2)


def left_turning(rng: Rng, gains: np.ndarray) -> np.ndarray:
    """The left singular vectors turn from lag to lag, by little or all at once."""
    num_steps, size = gains.shape
    turns = np.linalg.qr(
        np.eye(size) + power(rng, -6, 1) * rng.normal(size=(num_steps, size, size))
    )
    left = [rotations(rng, 1, size)[0]]
    for turn in turns[0][1:]:
        left.append(left[-1] @ turn)
    right = rotations(rng, num_steps, size)
    return steps_to(np.stack(left) * np.cumprod(gains, axis=0)[:, None] @ right.swapaxes(1, 2))


def steps_to(products: np.ndarray) -> np.ndarray:
    """The step Jacobians of given products: M_l = P_{l-1}⁻¹ P_l; their condition must be small."""
    return np.concatenate([products[:1], np.linalg.solve(products[:-1], products[1:])])


BASES = (rotated, in_hadamard, permuted, right_turning)


def of_gains(gains: Callable, basis: Callable) -> Callable[[Rng, int, int], np.ndarray]:
    return lambda rng, num_steps, size: basis(rng, gains(rng, num_steps, size))


# The others: step Jacobians (T, n, n).


def noisy_orthogonal(rng: Rng, num_steps: int, size: int) -> np.ndarray:
    """Orthogonal × (1 + noise of 1e-12 ... 1e-2): the spectrum is dense, and nowhere degenerate."""
    noise = power(rng, -12, -2) * rng.normal(size=(num_steps, size, size)) / np.sqrt(size)
    return rotations(rng, num_steps, size) @ (np.eye(size) + noise)


def identity(rng: Rng, num_steps: int, size: int) -> np.ndarray:
    return np.tile(np.eye(size), (num_steps, 1, 1))


def shears(rng: Rng, num_steps: int, size: int) -> np.ndarray:
    """I + c u vᵀ with u ⟂ v: every eigenvalue is 1, while the norm grows."""
    u, v = rotations(rng, num_steps, size)[:, :2].swapaxes(0, 1)
    return np.eye(size) + power(rng, -6, 1) * u[:, :, None] * v[:, None]


def of_low_rank(rng: Rng, num_steps: int, size: int) -> np.ndarray:
    """Gaussian factors of rank one to n."""
    rank = rng.integers(1, size + 1)
    left, right = rng.normal(size=(2, num_steps, size, rank))
    return left @ right.swapaxes(1, 2)


def rank_one(rng: Rng, num_steps: int, size: int) -> np.ndarray:
    left, right = rng.normal(size=(2, num_steps, size, 1))
    return left @ right.swapaxes(1, 2)


def equal_blocks(rng: Rng, num_steps: int, size: int) -> np.ndarray:
    """Block diagonal with the same blocks of four, so that every singular value is multiple."""
    blocks = rng.normal(size=(num_steps, 4, 4))
    jacobians = np.stack([np.eye(size) * 0.1] * num_steps)
    for at in range(0, size - 3, 4):
        jacobians[:, at : at + 4, at : at + 4] = blocks
    return jacobians


def graded(rng: Rng, num_steps: int, size: int) -> np.ndarray:
    """Singular values over twelve orders of magnitude."""
    values = 10 ** rng.uniform(-12, 0, (num_steps, 1, size))
    return rotations(rng, num_steps, size) * values @ rotations(rng, num_steps, size)


def sparse(rng: Rng, num_steps: int, size: int) -> np.ndarray:
    """A few entries a row."""
    entries = rng.normal(size=(num_steps, size, size))
    return np.where(rng.random(entries.shape) < rng.uniform(1, 4) / size, entries, 0)


def gaussian(rng: Rng, num_steps: int, size: int) -> np.ndarray:
    return rng.normal(size=(num_steps, size, size)) / np.sqrt(size)


def cut(rng: Rng, num_steps: int, size: int) -> np.ndarray:
    """A matrix of zeros in between: -inf from there on."""
    jacobians = noisy_orthogonal(rng, num_steps, size)
    jacobians[rng.integers(num_steps // 2, num_steps)] = 0
    return jacobians


def falling(rng: Rng, num_steps: int, size: int) -> np.ndarray:
    """The norm falls by 1e-300 in a step; decoupled, so that nothing is rounded."""
    gains = walk(rng, num_steps, size)
    gains[rng.permutation(num_steps)[:3]] *= 1e-300
    return permuted(rng, gains)


def rising(rng: Rng, num_steps: int, size: int) -> np.ndarray:
    """The norm rises by 1e200 in a step: beyond 1e205 what is pulled through it overflows."""
    gains = walk(rng, num_steps, size)
    gains[rng.permutation(num_steps)[:3]] *= 1e200
    return permuted(rng, gains)


def asleep(rng: Rng, num_steps: int, size: int) -> np.ndarray:
    """All but a few decoupled units are 1e-200 for long; then they are back as if nothing were."""
    gains = walk(rng, num_steps, size)
    sleeping = rng.permutation(size)[rng.integers(1, 8) :]
    gains[rng.integers(num_steps // 3), sleeping] *= 1e-200
    gains[rng.integers(num_steps // 2, num_steps), sleeping] *= 1e200
    return permuted(rng, gains)


OTHERS = (
    *(noisy_orthogonal, identity, shears, of_low_rank, rank_one, equal_blocks),
    *(graded, sparse, gaussian, cut, falling, rising, asleep),
)

FAMILIES: dict[str, Callable[[Rng, int, int], np.ndarray]] = {
    **{f"{g.__name__}, {b.__name__}": of_gains(g, b) for g in GAINS for b in BASES},
    # The condition of the others is too large for products that are prescribed.
    **{
        f"{g.__name__}, left_turning": of_gains(g, left_turning)
        for g in (near_degenerate, hopping, one_takes_over, equal)
    },
    **{family.__name__: family for family in OTHERS},
}
"""By name: (generator, T, n) -> step Jacobians (T, n, n) in the order of the lag."""


def of_size(size: int) -> list[str]:
    """The names of the families that there are at a size: a Hadamard basis has a power of two."""
    return [name for name in FAMILIES if size & (size - 1) == 0 or "hadamard" not in name]


def dyadic_late(rng: Rng, num_steps: int, size: int, depth: int) -> tuple[np.ndarray, np.ndarray]:
    """A late direction in a Hadamard basis, where no program rounds anything: a closed form.

    All gains are powers of two and the size is a power of four, so that an entry of a product is
    a sum of ±2^j / size. With depth the largest -j and the largest j, every partial sum of every
    product is exact in 2 depth + 1 + 2 log2(size) digits.

    Returns:
      The step Jacobians, and the log norms at lags 0 ... T.
    """
    leading = rng.integers(1, 9)
    exponents = np.zeros((num_steps + 1, size), int)
    exponents[1:, leading:] = -depth
    begin, unit = rng.integers(4, num_steps - 2 * depth), rng.integers(leading, size)
    grown = np.minimum(np.arange(num_steps + 1 - begin), 2 * depth) - depth
    exponents[begin:, unit] = grown
    gains = np.exp2(np.diff(exponents, axis=0))
    basis = hadamard(size)[:, rng.permutation(size)]
    return basis * gains[:, None] @ basis.T, exponents.max(axis=1) * np.log(2)
