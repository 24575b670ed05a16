"""Cells built from other cells, and their factories for specs such as ``zoneout(cell="lstm")``."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gradflow.cell import Carry, Cell, Key, Params
from gradflow.cells.dropout import Rate, with_dropout, with_noise, zoneout
from gradflow.cells.masks import recurrent_mask, with_recurrent_mask
from gradflow.cells.parts import RecurrentInit
from gradflow.cells.stack import stack
from gradflow.checks import check_flag, check_number, check_sizes
from gradflow.spec import split_specs


def residual(cell: Cell, *, scale: float = 1.0) -> Cell:
    """Adds a residual connection in time: s_t = s_{t-1} + scale · F(s_{t-1}, x_t).

    F is the step of the given cell and J_F its Jacobian; then J_t = I + scale · J_F. With a small
    scale this is the forward Euler step of ds/dt = F(s, x). For residual connections between
    layers see `gradflow.cells.stack.stack`.

    Args:
      cell: The cell whose step is F.
      scale: Factor of F, dimensionless.

    Raises:
      ValueError: If the scale is not finite.

    Source: Yue, Fu, Liang 2018, doi:10.3390/info9030056; Chang, Chen, Haber, Chi 2019,
    arXiv:1902.09689 (as an Euler step).
    """
    check_number("scale", scale, "finite", example=1.0)

    def step(params: Params, carry: Carry, x: Array) -> tuple[Carry, Array]:
        added, _ = cell.step(params, carry, x)
        carry = jax.tree.map(lambda s, f: s + scale * f, carry, added)
        return carry, cell.hidden(carry)

    return cell._replace(step=step)


def feedback(cell: Cell) -> Cell:
    """Feeds the output of a cell back as a part of its input: x'_t = [x_t; h_{t-1}].

    The given cell must take inputs of size input + hidden. With inputs of size 0 the cell runs on
    its own output. A vanilla RNN with feedback equals a vanilla RNN with the recurrent matrix
    W_h + W_x^h, where W_x^h are the columns of W_x that multiply h.

    Raises:
      ValueError: When noise is sampled, if the given cell takes noise as a part of its inputs.

    Source: Jordan 1986, "Serial order: a parallel distributed processing approach".
    """

    def joined(carry: Carry, x: Array) -> Float[Array, " input_and_hidden"]:
        return jnp.concatenate([x, cell.hidden(carry).ravel()])

    def noise(key: Key | None, params: Params, inputs: Array) -> tuple[Params, Array]:
        params, noisy = with_noise(cell, key, params, inputs)
        if noisy.shape != inputs.shape:
            raise ValueError(
                "Expected feedback of a cell without noise in its inputs, got a cell with sampled "
                "zoneout. Put the feedback inside: zoneout(cell='feedback', sampled=True)."
            )
        return params, noisy

    gates = cell.gates
    return cell._replace(
        step=lambda params, carry, x: cell.step(params, carry, joined(carry, x)),
        gates=gates and (lambda params, carry, x: gates(params, carry, joined(carry, x))),
        noise=cell.noise and noise,
    )


def stack_of(
    input_size: int,
    hidden_size: int,
    *,
    cells: str = "lstm,lstm",
    skip: str | None = None,
    recurrent_init: RecurrentInit | None = None,
) -> Cell:
    """Makes a `gradflow.cells.stack.stack` of the named cells, the lowest layer first.

    Every layer has hidden_size units. recurrent_init, if given, applies to every layer.

    Raises:
      ValueError: For an unknown cell or kind of skip connection, or an empty list of cells.
    """
    specs = split_specs(cells)
    above = hidden_size + input_size if skip == "input" else hidden_size
    sizes = [input_size, *(above for _ in specs[1:])]
    layers = [
        _make(spec, size, hidden_size, recurrent_init)
        for spec, size in zip(specs, sizes, strict=False)
    ]
    return stack(layers, skip=skip)


def residual_of(
    input_size: int,
    hidden_size: int,
    *,
    cell: str = "rnn",
    scale: float = 1.0,
    recurrent_init: RecurrentInit | None = None,
) -> Cell:
    """Makes the named cell with a `residual` connection in time."""
    return residual(_make(cell, input_size, hidden_size, recurrent_init), scale=scale)


def feedback_of(
    input_size: int,
    hidden_size: int,
    *,
    cell: str = "rnn",
    recurrent_init: RecurrentInit | None = None,
) -> Cell:
    """Makes the named cell with `feedback` of its output."""
    check_sizes(input_size, hidden_size)  # here, because the inner cell has a larger input
    return feedback(_make(cell, input_size + hidden_size, hidden_size, recurrent_init))


def dropout_of(
    input_size: int,
    hidden_size: int,
    *,
    cell: str = "lstm",
    rate_x: float = 0.0,
    rate_h: float = 0.25,
    recurrent_init: RecurrentInit | None = None,
) -> Cell:
    """Makes the named cell with variational dropout: `gradflow.cells.dropout.with_dropout`."""
    inner = _make(cell, input_size, hidden_size, recurrent_init)
    return with_dropout(inner, rate_x=rate_x, rate_h=rate_h)


def zoneout_of(
    input_size: int,
    hidden_size: int,
    *,
    cell: str = "lstm",
    rate: Rate = 0.1,
    sampled: bool = False,
    recurrent_init: RecurrentInit | None = None,
) -> Cell:
    """Makes the named cell with zoneout or its expectation: `gradflow.cells.dropout.zoneout`.

    With ``sampled`` a step on an input of size input_size uses the expectation. A step whose input
    contains the noise as well, as in training, is random.
    """
    check_flag("sampled", sampled)
    inner = _make(cell, input_size, hidden_size, recurrent_init)
    mean, random = zoneout(inner, rate=rate), zoneout(inner, rate=rate, sampled=True)
    if not sampled:
        return mean

    def choose(mean: Callable, random: Callable) -> Callable:
        return lambda params, carry, x: (mean if x.shape[-1] == input_size else random)(
            params, carry, x
        )

    return random._replace(
        step=choose(mean.step, random.step),
        gates=choose(mean.gates, random.gates) if mean.gates and random.gates else None,
    )


def masked_of(
    input_size: int,
    hidden_size: int,
    *,
    cell: str = "rnn",
    pattern: str = "direct",
    num_layers: int = 1,
    recurrent_init: RecurrentInit | None = None,
) -> Cell:
    """Makes the named cell with a mask on W_h: `gradflow.cells.masks.recurrent_mask`."""
    inner = _make(cell, input_size, hidden_size, recurrent_init)
    return with_recurrent_mask(inner, recurrent_mask(pattern, hidden_size, num_layers=num_layers))


def _make(
    spec: str, input_size: int, hidden_size: int, recurrent_init: RecurrentInit | None
) -> Cell:
    from gradflow.cells import resolve  # here, because gradflow.cells imports this module

    options = {} if recurrent_init is None else {"recurrent_init": recurrent_init}
    return resolve(spec)(input_size, hidden_size, **options)
