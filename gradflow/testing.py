"""The contract of a cell as one function, for your own tests: ``check_cell(my_factory)``."""

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


class Before(NamedTuple):
    """The arguments of a step."""

    params: Params
    carry: Carry
    x: Array


class After(NamedTuple):
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
    """Checks the contract of the cell that factory(input_size, hidden_size) makes.

    First the structure (`check_structure`), then in float64, whether x64 is on or not: init is
    a function of the key; all that is computed is finite, the step Jacobian at s_0 too; hidden
    selects entries of the carry and gives the step's h; the step is pure, and the same under
    `jax.jit` and `jax.vmap`; its derivatives by parameters, carry and input in reverse mode
    equal central differences, entry by entry, and those in forward mode.

    Args:
      factory: Makes the cell from the two sizes; its options have defaults.
      input_size: Size of x.
      hidden_size: Size of h.
      gradients: False leaves out the central differences, for a cell that cuts or replaces its
        gradient on purpose.

    Raises:
      CellContractError: For the first clause that is broken: one of `check_structure`'s, or
        'key', 'finite', 'gates', 'hidden', 'pure', 'jit', 'vmap', 'gradient' and 'forward'.
    """
    with jax.enable_x64(True):
        check_structure(factory, input_size=input_size, hidden_size=hidden_size)
        cell = build(factory, input_size, hidden_size)
        points = _points(cell, _check_key(cell), input_size)
        _check_finite(cell, points)
        _check_hidden(cell, points[-1])
        _check_pure(cell, points[-1])
        _check_vmap(cell, points)
        _check_derivatives(cell, points, gradients)


def _check_key(cell: Cell) -> Params:
    params, again, other = (cell.init(jax.random.key(seed)) for seed in (0, 0, 1))
    mend = "draw from the key, and from nothing else"
    require(_same(params, again), "key", "the same parameters from the same key", "others", mend)
    differ = not _same(params, other) or not jax.tree.leaves(params)
    require(differ, "key", "other parameters from another key", "the same", mend)
    return params


def _points(cell: Cell, params: Params, input_size: int) -> list[Before]:
    """The arguments of four steps on noise: carries that the cell itself comes to."""
    carry, points = cell.initial_carry(), []
    for x in jax.random.normal(jax.random.key(2), (4, input_size)):
        points.append(Before(params, carry, x))
        carry = cell.step(params, carry, x)[0]
    return points


def _check_finite(cell: Cell, points: list[Before]) -> None:
    mend = "look for a division by, or a root or logarithm of, what can be zero"
    for t, point in enumerate(points, start=1):
        gates = {} if cell.gates is None else dict(cell.gates(*point))
        after = After(*cell.step(*point))
        for clause, values in (("finite", point), ("finite", after), ("gates", gates)):
            for label, value in zip(_labels(values), _flat(values), strict=True):
                came = f"{value} at {label} in step {t}"
                require(bool(np.isfinite(value)), clause, "a finite value", came, mend)


def _check_hidden(cell: Cell, point: Before) -> None:
    carry, h = cell.step(*point)
    mend = "keep h in the carry, compute it in the step, and return the entries that are h"
    came = f"{h} for {cell.hidden(carry)}"
    require(_close(h, cell.hidden(carry)), "hidden", "h = hidden(new carry)", came, mend)
    flat, unravel = ravel_pytree(carry)
    index = np.asarray(cell.hidden(unravel(jnp.arange(flat.size, dtype=flat.dtype))))
    probe = jax.random.normal(jax.random.key(3), flat.shape)
    selected = np.asarray(cell.hidden(unravel(probe)))
    # The entries of the probe are all different, so that each tells where it was taken from.
    where = [np.flatnonzero(np.asarray(probe) == value).tolist() for value in selected]
    is_selection = where == [[i] for i in index] and len(set(index)) == index.size
    came = f"hidden(0, 1, 2, ...) = {index}"
    require(is_selection, "hidden", "a selection of entries of the carry", came, mend)


def _check_pure(cell: Cell, point: Before) -> None:
    eager = cell.step(*point)
    mend = "let the step depend on its arguments alone, by jax.numpy alone"
    same = _same(cell.step(*point), eager)
    require(same, "pure", "the same bits from the same arguments", "others", mend)
    jitted = attempt("jit", "jax.jit(step)", jax.jit(cell.step), *point)
    require(_close(jitted, eager), "jit", "the same values under jax.jit", "others", mend)


def _check_vmap(cell: Cell, points: list[Before]) -> None:
    batch = _stack(points)
    mapped = _jit(jax.vmap(cell.step))
    together = attempt("vmap", "jax.vmap(step)", mapped, *batch)
    each = _stack([cell.step(*point) for point in points])
    what = "the values of the examples one by one, from a batch of them under jax.vmap"
    mend = "let nothing pass from one example to another"
    require(_close(together, each), "vmap", what, "others", mend)


def _check_derivatives(cell: Cell, points: list[Before], gradients: bool) -> None:
    """∂(s_t, h_t)/∂(params, s_{t-1}, x_t): finite at s_0, and the same every way at the last."""
    unravel = ravel_pytree(points[-1])[1]

    def step(flat: Array) -> Array:
        return ravel_pytree(cell.step(*unravel(flat)))[0]

    first, last = (ravel_pytree(point)[0] for point in (points[0], points[-1]))
    # A parameter that starts at zero, such as a peephole, would hide what is cut behind it.
    last += 0.01 * jax.random.normal(jax.random.key(4), last.shape)
    reverse = _jit(jax.jacrev(step))
    at_first = attempt("gradient", "jax.jacrev(step)", reverse, first)
    mend = "guard a root, norm, quotient or power at zero by jnp.where on its argument"
    finite = bool(jnp.isfinite(at_first).all())
    require(finite, "finite", "a finite step Jacobian at s_0", "NaN or inf", mend)
    jacobian = np.asarray(reverse(last))
    if gradients:
        _check_entries(jacobian, _central_differences(step, last), cell, points[-1])
    forward = attempt("forward", "jax.jacfwd(step)", _jit(jax.jacfwd(step)), last)
    what = "the derivatives of reverse mode also in forward mode"
    mend = "define a derivative of your own by jax.custom_jvp, which serves both modes"
    require(_close(forward, jacobian), "forward", what, "others", mend)


def _central_differences(
    function: Callable[[Array], Array], point: Float[Array, " n"]
) -> Float[np.ndarray, "m n"]:
    size = 1e-6 * jnp.maximum(1, abs(point))
    values = _jit(jax.vmap(function))(
        jnp.concatenate([point + jnp.diag(size), point - jnp.diag(size)])
    )
    ahead, behind = jnp.split(values, 2)
    return np.asarray((ahead - behind).T / (2 * size))


def _check_entries(
    jacobian: Float[np.ndarray, "m n"],
    differences: Float[np.ndarray, "m n"],
    cell: Cell,
    point: Before,
) -> None:
    wrong = np.argwhere(abs(jacobian - differences) > 1e-7 + 1e-6 * abs(differences))
    if len(wrong):
        i, j = wrong[0]
        later, earlier = _labels(After(*cell.step(*point)))[i], _labels(point)[j]
        require(
            False,
            "gradient",
            f"∂{later}/∂{earlier} = {differences[i, j]:z.9g} (central differences)",
            f"{jacobian[i, j]:z.9g} in reverse mode, and {len(wrong)} such entries in all",
            "look for stop_gradient, rounding or a wrong derivative rule on that path, or pass "
            "gradients=False if it is meant",
        )


def _jit(function: Callable[..., Any]) -> Callable[..., Any]:
    """`jax.jit` for what runs once: on the CPU it is compiled without any optimisation."""
    cpu = jax.default_backend() == "cpu"
    return jax.jit(
        function, compiler_options={"xla_backend_optimization_level": 0} if cpu else None
    )


def _labels(tree: Any) -> list[str]:
    """The name of each entry of `ravel_pytree`'s vector, such as params.f.W_h[1, 2]."""
    return [
        f"{jax.tree_util.keystr(path, simple=True, separator='.')}{list(index)}"
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
        for index in np.ndindex(jnp.shape(leaf))
    ]


def _flat(tree: Any) -> Float[np.ndarray, " n"]:
    return np.asarray(ravel_pytree(tree)[0])


def _stack(trees: list[Any]) -> Any:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def _same(one: Any, other: Any) -> bool:
    return np.array_equal(_flat(one), _flat(other), equal_nan=True)


def _close(one: Any, other: Any) -> bool:
    size = 1 + np.max(abs(_flat(other)), initial=0)
    return bool(np.all(abs(_flat(one) - _flat(other)) <= 1e-10 * size))
