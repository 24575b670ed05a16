"""The check that a cell is an LSTM: c_t = f_t ∘ c_{t-1} + i_t ∘ g_t and h_t = o_t ∘ φ(c_t)."""

import contextlib
from collections.abc import Callable
from functools import lru_cache
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from gradflow.cell import Carry, Cell, Params
from gradflow.flow.nonfinite import nonfinite_steps
from gradflow.flow.trace import Trace
from gradflow.unroll import check_is_cell

Readout: TypeAlias = Callable[[Float[Array, " hidden"]], Float[Array, " hidden"]]
"""φ in h_t = o_t ∘ φ(c_t)."""

LSTMGates: TypeAlias = Callable[[Params, Carry, Any], dict[str, Array]]
"""(params, s_{t-1}, x_t) -> the activations of f, i, g and o."""


@lru_cache(maxsize=256)
def on_vectors(cell: Cell) -> Cell:
    """Returns a cell whose h, c and gates are the vectors of a cell's images, if it has these."""
    like = jax.eval_shape(cell.initial_carry)
    gates = cell.gates
    if gates is None or all(leaf.ndim == 1 for leaf in jax.tree.leaves(like)):
        return cell

    def restore(carry: Carry) -> Carry:
        return jax.tree.map(lambda leaf, of: leaf.reshape(of.shape), carry, like)

    return cell._replace(
        step=lambda params, carry, x: flattened(cell.step(params, restore(carry), x)),
        initial_carry=lambda: flattened(cell.initial_carry()),
        hidden=lambda carry: cell.hidden(restore(carry)).ravel(),
        gates=lambda params, carry, x: flattened(gates(params, restore(carry), x)),
    )


def flattened(tree: Any) -> Any:
    """Returns a tree with each array as a vector."""
    return jax.tree.map(jnp.ravel, tree)


def lstm_gates(cell: Cell, *, padded: bool) -> LSTMGates:
    """Returns the cell's gates f, i, g and o, of which it may leave out f or i.

    With padding, the input is the pair (x_t, whether t is real), and a padded step copies c: f = 1
    and i = 0.

    Raises:
      TypeError: If the cell is none.
      ValueError: If its carry has no fields h and c, or it has not these gates.
    """
    check_is_cell(cell)
    fields = getattr(jax.eval_shape(cell.initial_carry), "_fields", ())
    activations = cell.gates
    if not {"h", "c"} <= set(fields) or activations is None:
        raise ValueError(
            "Expected a cell that has gates and a carry with fields h and c, such as lstm, got "
            f"a carry with fields {list(fields)} and gates={activations}. For another cell "
            "measure log_norms."
        )

    def gates(params: Params, carry: Carry, x: Any) -> dict[str, Array]:
        if padded:
            value, is_real = x
            real = given(params, carry, value)
            copy = {"f": jnp.where(is_real, real["f"], 1), "i": jnp.where(is_real, real["i"], 0)}
            return real | copy
        return given(params, carry, x)

    def given(params: Params, carry: Carry, x: Array) -> dict[str, Array]:
        named = activations(params, carry, x)
        if not {"g", "o"} <= set(named) or not {"i", "f"} & set(named):
            raise ValueError(
                f"Expected gates g and o, and i or f or both, got {sorted(named)}. Give "
                "them these names in the cell's gates."
            )
        f = named["f"] if "f" in named else jnp.ones_like(named["g"])
        i = named["i"] if "i" in named else 1 - f
        return {"f": f, "i": i, "g": named["g"], "o": named["o"]}

    return gates


def measure_mismatch(
    trace: Trace, readout: Readout, gates: dict[str, Array], is_real: Bool[Array, " steps"]
) -> Float[Array, ""]:
    """Computes the largest error of the equations along a trajectory, relative to 1 + max |c|."""
    after = trace.after()
    off_c = gates["f"] * trace.before.c + gates["i"] * gates["g"] - after.c
    off_h = gates["o"] * jax.vmap(readout)(after.c) - after.h
    counts = (is_real & ~nonfinite_steps(trace))[:, None]
    off = jnp.where(counts, jnp.maximum(jnp.abs(off_c), jnp.abs(off_h)), 0)
    size = 1 + jnp.max(jnp.abs(after.c), initial=0, where=counts)
    return jnp.max(off, initial=0) / size


def tolerance(mismatch: Array) -> float:
    """Returns the error that rounding may leave."""
    return float(jnp.finfo(mismatch.dtype).eps) ** 0.5


def check_equations(mismatch: Float[Array, ""]) -> None:
    """Checks an error of the equations, where its value is known.

    Raises:
      ValueError: If it is more than rounding leaves.
    """
    with contextlib.suppress(jax.errors.ConcretizationTypeError):  # no value is known yet
        if float(mismatch) > tolerance(mismatch):
            raise ValueError(
                "Expected a cell with c_t = f_t ∘ c_{t-1} + i_t ∘ g_t and "
                f"h_t = o_t ∘ readout(c_t), got one that is off by {float(mismatch):.3g}. "
                "Give the readout= that it has, if it is not tanh."
            )
