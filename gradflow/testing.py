"""The contract of a cell as one function, for the tests of your cell: ``check_cell(factory)``."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from gradflow.cell import Carry, Cell, Params
from gradflow.structure import CellContractError, attempt, build, check_structure, require

__all__ = ["CellContractError", "check_cell", "check_structure"]


class StepArguments(NamedTuple):
    """The arguments of a step."""

    params: Params
    carry: Carry
    x: Array


class StepResults(NamedTuple):
    """The results of a step."""

    carry: Carry
    h: Array


def check_cell(
    factory: Callable[..., Cell],
    *,
    input_size: int = 3,
    hidden_size: int = 4,
    gradients: bool = True,
) -> None:
    """Checks that factory(input_size, hidden_size) makes a cell that satisfies the contract.

    `check_structure` comes first. Then, in float64 whether x64 is on or not: init depends on the
    key only; all results and the step Jacobian at s_0 are finite; hidden computes the step's h from
    the new carry; the step is pure, with equal values under `jax.jit` and `jax.vmap`;
    its reverse-mode derivatives equal central differences and forward mode, entry by entry.

    Args:
      factory: Makes the cell from the two sizes; its other arguments have defaults.
      input_size: Size of x.
      hidden_size: Size of h.
      gradients: Whether central differences are compared; False for a cell that cuts its gradient.

    Raises:
      CellContractError: For the first clause that is violated: one of those of `check_structure`,
        or 'key', 'finite', 'gates', 'hidden', 'pure', 'jit', 'vmap', 'gradient' and 'forward'.
    """
    with jax.enable_x64(True):
        check_structure(factory, input_size=input_size, hidden_size=hidden_size)
        cell = build(factory, input_size, hidden_size)
        points, results = _run(cell, _check_key(cell), input_size)
        _check_finite(cell, points, results)
        _check_hidden(cell, results[-1])
        _check_pure(cell, points[-1], results[-1])
        _check_vmap(cell, points, results)
        _check_derivatives(cell, points, gradients)


def _check_key(cell: Cell) -> Params:
    params, again, other = (cell.init(jax.random.key(seed)) for seed in (0, 0, 1))
    fix = "Let init depend on the key and on nothing else"
    require(_same(params, again), "key", "equal parameters from equal keys", "different ones", fix)
    differ = not _same(params, other) or not jax.tree.leaves(params)
    require(differ, "key", "different parameters from different keys", "equal ones", fix)
    return params


def _run(
    cell: Cell, params: Params, input_size: int
) -> tuple[list[StepArguments], list[StepResults]]:
    """Returns the arguments and the results of the first four steps on random inputs."""
    carry, points, results = cell.initial_carry(), [], []
    for x in jax.random.normal(jax.random.key(2), (4, input_size)):
        points.append(StepArguments(params, carry, x))
        results.append(StepResults(*cell.step(*points[-1])))
        carry = results[-1].carry
    return points, results


def _check_finite(cell: Cell, points: list[StepArguments], results: list[StepResults]) -> None:
    fix = "Guard each division, root and logarithm whose argument can be zero"
    for t, (point, result) in enumerate(zip(points, results, strict=True), start=1):
        gates = {} if cell.gates is None else dict(cell.gates(*point))
        for clause, values in (("finite", point), ("finite", result), ("gates", gates)):
            flat = _flat(values)
            for i in np.flatnonzero(~np.isfinite(flat))[:1]:
                got = f"{flat[i]} at {_labels(values)[i]} in step {t}"
                require(False, clause, "a finite value", got, fix)


def _check_hidden(cell: Cell, result: StepResults) -> None:
    h, hidden = result.h, cell.hidden(result.carry)
    fix = "Compute h from the new carry, in hidden as in the step"
    require(_close(h, hidden), "hidden", "h = hidden(new carry)", f"{h} and {hidden}", fix)


def _check_pure(cell: Cell, point: StepArguments, result: StepResults) -> None:
    fix = "Let the step depend on its arguments only, and compute with jax.numpy only"
    same = _same(cell.step(*point), result)
    require(same, "pure", "equal bits from equal arguments", "different ones", fix)
    jitted = attempt("jit", "jax.jit(step)", jax.jit(cell.step), *point)
    require(_close(jitted, result), "jit", "equal values under jax.jit", "different ones", fix)


def _check_vmap(cell: Cell, points: list[StepArguments], results: list[StepResults]) -> None:
    mapped = _jit(jax.vmap(cell.step))
    batched = attempt("vmap", "jax.vmap(step)", mapped, *_stack(points))
    expected = "equal values for a batch under jax.vmap and for its examples one by one"
    fix = "Keep the examples of a batch independent of each other"
    same = _close(StepResults(*batched), _stack(results))
    require(same, "vmap", expected, "different ones", fix)


def _check_derivatives(cell: Cell, points: list[StepArguments], gradients: bool) -> None:
    """Checks ∂(s_t, h_t)/∂(params, s_{t-1}, x_t): finite at s_0, equal in all modes later."""
    unravel = ravel_pytree(points[-1])[1]

    def step(flat: Array) -> Array:
        return ravel_pytree(cell.step(*unravel(flat)))[0]

    first, last = (_flat(point) for point in (points[0], points[-1]))
    # A parameter that is zero at initialisation, such as a peephole, would hide a cut behind it.
    last = last + 0.01 * np.random.default_rng(4).normal(size=last.shape)
    reverse = _jit(jax.jacrev(step))
    at_first = attempt("gradient", "jax.jacrev(step)", reverse, first)
    fix = "Apply jnp.where to the argument of each root, norm, quotient and power, to avoid zero"
    finite = bool(np.isfinite(at_first).all())
    require(finite, "finite", "a finite step Jacobian at s_0", "NaN or inf", fix)
    jacobian = np.asarray(reverse(last))
    if gradients:
        _check_entries(jacobian, _central_differences(step, last), cell, points[-1])
    forward = attempt("forward", "jax.jacfwd(step)", _jit(jax.jacfwd(step)), last)
    expected = "equal derivatives in reverse and in forward mode"
    fix = "Define a custom derivative by jax.custom_jvp, which covers both modes"
    require(_close(forward, jacobian), "forward", expected, "different ones", fix)


def _central_differences(
    function: Callable[[Array], Array], point: Float[np.ndarray, " n"]
) -> Float[np.ndarray, "m n"]:
    # Truncation error about 1e-12, rounding error about 1e-16/1e-6 = 1e-10: both are below the
    # tolerance of `_check_entries`.
    size = 1e-6 * np.maximum(1, abs(point))
    # One point after the other: under `jax.vmap` a convolution has its own weights in each example,
    # for which XLA's CPU programs take a hundred times as long.
    values = _jit(lambda points: jax.lax.map(function, points))(
        np.concatenate([point + np.diag(size), point - np.diag(size)])
    )
    right, left = np.split(np.asarray(values), 2)
    return (right - left).T / (2 * size)


def _check_entries(
    jacobian: Float[np.ndarray, "m n"],
    differences: Float[np.ndarray, "m n"],
    cell: Cell,
    point: StepArguments,
) -> None:
    wrong = np.argwhere(abs(jacobian - differences) > 1e-7 + 1e-6 * abs(differences))
    if len(wrong):
        i, j = wrong[0]
        later, earlier = _labels(StepResults(*cell.step(*point)))[i], _labels(point)[j]
        require(
            False,
            "gradient",
            f"∂{later}/∂{earlier} = {differences[i, j]:z.9g} (central differences)",
            f"{jacobian[i, j]:z.9g} in reverse mode, and {len(wrong)} such entries in all",
            "Remove stop_gradient, rounding or a wrong derivative rule from that path, or pass "
            "gradients=False if it is intended",
        )


def _jit(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compiles without optimisation on CPU, which is faster for a function that runs once."""
    cpu = jax.default_backend() == "cpu"
    return jax.jit(
        function, compiler_options={"xla_backend_optimization_level": 0} if cpu else None
    )


def _labels(tree: Any) -> list[str]:
    """Returns the name of each entry of `ravel_pytree`'s vector, such as params.f.W_h[1, 2]."""
    return [
        f"{jax.tree_util.keystr(path, simple=True, separator='.')}{list(index)}"
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
        for index in np.ndindex(jnp.shape(leaf))
    ]


def _flat(tree: Any) -> Float[np.ndarray, " n"]:
    """As `ravel_pytree`, in NumPy: JAX would compile programs for each new set of shapes."""
    leaves = jax.tree.leaves(tree)
    return np.concatenate([np.zeros(0), *(np.ravel(leaf) for leaf in leaves)])


def _stack(trees: list[Any]) -> Any:
    return jax.tree.map(lambda *leaves: np.stack(leaves), *trees)


def _same(one: Any, other: Any) -> bool:
    return np.array_equal(_flat(one), _flat(other), equal_nan=True)


def _close(one: Any, other: Any) -> bool:
    size = 1 + np.max(abs(_flat(other)), initial=0)
    return bool(np.all(abs(_flat(one) - _flat(other)) <= 1e-10 * size))
