"""Noise in a cell: variational dropout, and zoneout with its expectation."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from gradflow.cell import Carry, Cell, Key, Params, param_shapes, split_key
from gradflow.cells.masks import map_matrices
from gradflow.checks import check_flag, check_number

Rate = float | Mapping[str, float]
"""A probability, or a probability for each field of the carry."""


def with_dropout(cell: Cell, *, rate_x: float = 0.0, rate_h: float = 0.0) -> Cell:
    """Applies variational dropout: one mask on x and one on h for a whole sequence.

    With u^x, u^h uniform on [0, 1) and m^q = [u^q ≥ rate^q]/(1 - rate^q) for q = x, h, every
    product W_x x_t of the cell becomes W_x (m^x ∘ x_t), and every product W_h h_{t-1} becomes
    W_h (m^h ∘ h_{t-1}). A term without a matrix, such as z ∘ h_{t-1} in a GRU, is not dropped.
    All gates use the same masks; the paper also has a variant with a mask for each gate. Keras
    applies ``recurrent_dropout`` in the same way; PyTorch's ``dropout`` acts between layers.

    A step is pure, so the numbers u are parameters: ``params["u_x"]`` and ``params["u_h"]``, beside
    the weights in ``params["cell"]``. init samples them, and `resample_masks` or the cell's
    ``noise`` samples new ones for the next sequence or batch. Their gradient is 0; exclude them
    from weight decay. At test time there is no dropout: the value u = 1, which is never sampled,
    switches the masks off.

    Args:
      cell: The cell whose products are masked.
      rate_x: Probability that an input is dropped.
      rate_h: Probability that a unit's recurrent output is dropped.

    Raises:
      TypeError: If a rate is not a number.
      ValueError: If a rate is not in [0, 1), or the cell has no W_x and W_h.

    Source: Gal & Ghahramani 2016, arXiv:1512.05287.
    """
    for name, rate in (("rate_x", rate_x), ("rate_h", rate_h)):
        check_number(name, rate, "at least 0 and below 1", example=0.25)
    input_size, hidden_size = _sizes(cell)

    def init(key: Key) -> Params:
        k_cell, k_x, k_h = split_key(key, 3)
        u_x, u_h = jax.random.uniform(k_x, (input_size,)), jax.random.uniform(k_h, (hidden_size,))
        return {"cell": cell.init(k_cell), "u_x": u_x, "u_h": u_h}

    def masked(params: Params) -> Params:
        # W (m ∘ v) = (W with its columns scaled by m) v: the step itself needs no change.
        m_x, m_h = _mask(params["u_x"], rate_x), _mask(params["u_h"], rate_h)
        return map_matrices(params["cell"], W_x=lambda W: W * m_x, W_h=lambda W: W * m_h)

    def noise(key: Key | None, params: Params, inputs: Array) -> tuple[Params, Array]:
        k_masks, k_cell = (None, None) if key is None else jax.random.split(key)
        new = _without_masks(params) if k_masks is None else resample_masks(k_masks, params)
        inner, inputs = with_noise(cell, k_cell, params["cell"], inputs)
        return new | {"cell": inner}, inputs

    gates = cell.gates
    return cell._replace(
        init=init,
        step=lambda params, carry, x: cell.step(masked(params), carry, x),
        gates=gates and (lambda params, carry, x: gates(masked(params), carry, x)),
        noise=noise,
    )


def with_noise(
    cell: Cell, key: Key | None, params: Params, inputs: Array
) -> tuple[Params, Float[Array, "steps batch input"]]:
    """Adds new noise to the parameters and inputs of a batch.

    Without a key the noise is switched off, as in an evaluation. A cell without noise gets its
    parameters and inputs unchanged.
    """
    return (params, inputs) if cell.noise is None else cell.noise(key, params, inputs)


def resample_masks(key: Key, params: Params) -> Params:
    """Samples new dropout masks for the next sequence, and keeps the other parameters."""
    k_x, k_h = jax.random.split(key)
    u_x, u_h = params["u_x"], params["u_h"]
    return params | {
        "u_x": jax.random.uniform(k_x, u_x.shape, u_x.dtype),
        "u_h": jax.random.uniform(k_h, u_h.shape, u_h.dtype),
    }


def _without_masks(params: Params) -> Params:
    return params | {name: jnp.ones_like(params[name]) for name in ("u_x", "u_h")}


def zoneout(cell: Cell, *, rate: Rate = 0.1, sampled: bool = False) -> Cell:
    """Applies zoneout: each entry of the carry keeps its value with a given probability.

    With F the step of the given cell and d_t independent entries that are 1 with probability rate::

        s_t = d_t ∘ s_{t-1} + (1 - d_t) ∘ F(s_{t-1}, x_t)

    By default d_t is replaced by its expectation, rate, as in the paper at test time. With one
    rate for the whole carry, J_t = rate I + (1 - rate) J_F.

    Args:
      cell: The cell whose step is F.
      rate: The probability, or one for each field of the carry, such as {"h": 0.05, "c": 0.5}.
      sampled: Whether d_t is random, as in training. A step is pure, so its input is then x_t
        followed by one uniform number u_t for each entry of the carry, and d_t = [u_t < rate].
        A negative u_t selects the expectation. The cell's ``noise`` appends u to the inputs.

    Raises:
      TypeError: If a rate is not a number, or sampled is neither True nor False.
      ValueError: If a rate is not in [0, 1], or the fields are not those of the carry.

    Source: Krueger et al. 2016, arXiv:1606.01305.
    """
    check_flag("sampled", sampled)
    carry = jax.eval_shape(cell.initial_carry)
    rates = _rates(rate, carry)
    num_noise = sum(leaf.size for leaf in jax.tree.leaves(carry))

    def step(params: Params, carry: Carry, x: Array) -> tuple[Carry, Array]:
        kept = rates
        if sampled:
            x, noise = jnp.split(x, [x.shape[-1] - num_noise])
            u = ravel_pytree(carry)[1](noise)
            kept = jax.tree.map(lambda u, p: jnp.where(u < 0, p, (u < p).astype(u.dtype)), u, rates)
        new, _ = cell.step(params, carry, x)
        carry = jax.tree.map(lambda d, s, f: d * s + (1 - d) * f, kept, carry, new)
        return carry, cell.hidden(carry)

    def noise(key: Key | None, params: Params, inputs: Array) -> tuple[Params, Array]:
        k_zone, k_cell = (None, None) if key is None else jax.random.split(key)
        params, inputs = with_noise(cell, k_cell, params, inputs)
        shape, dtype = (*inputs.shape[:-1], num_noise), inputs.dtype
        u = -jnp.ones(shape, dtype) if k_zone is None else jax.random.uniform(k_zone, shape, dtype)
        return params, jnp.concatenate([inputs, u], axis=-1)

    gates = cell.gates
    if sampled and gates is not None:
        gates_of = gates
        gates = lambda params, carry, x: gates_of(params, carry, x[:-num_noise])  # noqa: E731
    return cell._replace(step=step, gates=gates, noise=noise if sampled else cell.noise)


def _rates(rate: Rate, carry: Any) -> Any:
    """Returns the rate of each leaf of the carry, in the structure of the carry."""
    fields = getattr(carry, "_fields", ())
    if isinstance(rate, Mapping):
        if set(rate) != set(fields):
            raise ValueError(
                f"Expected a rate for each field of the carry, {list(fields)}, got "
                f"{dict(rate)}. Give a rate for each of these fields, or one number."
            )
        for field, value in rate.items():
            check_number(f"the rate of {field}", value, "between 0 and 1", example=0.1)
        return type(carry)(**rate)
    check_number("rate", rate, "between 0 and 1", example=0.1)
    return jax.tree.map(lambda leaf: rate, carry)


def _mask(u: Float[Array, " n"], rate: float) -> Float[Array, " n"]:
    return jnp.where(u < 1, (u >= rate).astype(u.dtype) / (1 - rate), 1)


def _sizes(cell: Cell) -> tuple[int, int]:
    """Returns the numbers of columns of the cell's W_x and W_h."""
    found = {"W_x": {0}, "W_h": {0}}

    def record(name: str) -> Any:
        return lambda W: found[name].add(W.shape[-1]) or W

    map_matrices(param_shapes(cell), W_x=record("W_x"), W_h=record("W_h"))
    return max(found["W_x"]), max(found["W_h"])
