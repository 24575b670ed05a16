"""Cells made from a cell, and how a command line names them: ``zoneout(cell="lstm")``."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gradflow.cell import Carry, Cell, Key, Params
from gradflow.cells.checks import check_sizes
from gradflow.cells.dropout import Rate, with_dropout, with_noise, zoneout
from gradflow.cells.masks import recurrent_mask, with_recurrent_mask
from gradflow.cells.parts import RecurrentInit
from gradflow.cells.stack import stack
from gradflow.spec import split_specs


def residual(cell: Cell, *, scale: float = 1.0) -> Cell:
    """The cell as what is added to its carry: s_t = s_{t-1} + scale · F(s_{t-1}, x_t).

    F is the step of the cell given, of Jacobian J_F; then J_t = I + scale · J_F. With a small
    scale it is the forward Euler step of ds/dt = F(s, x). (Residual connections from layer to
    layer are `gradflow.cells.stack.stack`'s.)

    Args:
      scale: Of what is added; dimensionless.

    Raises:
      ValueError: If the scale is not finite.

    Source: Yue, Fu, Liang 2018, doi:10.3390/info9030056; Chang, Chen, Haber, Chi 2019,
    arXiv:1902.09689 (as an Euler step).
    """
    if not math.isfinite(scale):
        raise ValueError(f"scale is expected to be a finite number, got {scale}: try 1")

    def step(params: Params, carry: Carry, x: Array) -> tuple[Carry, Array]:
        added, _ = cell.step(params, carry, x)
        carry = jax.tree.map(lambda s, f: s + scale * f, carry, added)
        return carry, cell.hidden(carry)

    return cell._replace(step=step)


def feedback(cell: Cell) -> Cell:
    """The cell whose output is fed back beside its input: x'_t = [x_t; h_{t-1}].

    The cell given must take input + hidden numbers; with an input of size 0 the net runs on
    its own output alone. A vanilla RNN then is one of W_h + W_x^h, where W_x^h are the
    columns of W_x that meet h.

    Raises:
      ValueError: When noise is drawn, if that of the cell given goes with its inputs.

    Source: Jordan 1986, "Serial order: a parallel distributed processing approach".
    """

    def joined(carry: Carry, x: Array) -> Float[Array, " input_and_hidden"]:
        return jnp.concatenate([x, cell.hidden(carry)])

    def noise(key: Key | None, params: Params, inputs: Array) -> tuple[Params, Array]:
        params, drawn = with_noise(cell, key, params, inputs)
        if drawn.shape != inputs.shape:
            raise ValueError(
                "feedback of a cell without noise in its inputs is expected, got one of sampled "
                "zoneout: put the feedback inside, as zoneout(cell='feedback', sampled=True)"
            )
        return params, drawn

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
    """A stack of the cells named, the lowest first: `gradflow.cells.stack.stack`.

    Every layer has hidden_size units; recurrent_init, if given, goes to every layer.

    Raises:
      ValueError: For an unknown cell or kind of skip, or no cell at all.
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
    """The cell named, `residual` in time."""
    return residual(_make(cell, input_size, hidden_size, recurrent_init), scale=scale)


def feedback_of(
    input_size: int,
    hidden_size: int,
    *,
    cell: str = "rnn",
    recurrent_init: RecurrentInit | None = None,
) -> Cell:
    """The cell named, with `feedback` of its output."""
    check_sizes(input_size, hidden_size)  # of this cell: the one inside has a larger input
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
    """The cell named, under variational dropout: `gradflow.cells.dropout.with_dropout`."""
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
    """The cell named, under zoneout or its expectation: `gradflow.cells.dropout.zoneout`.

    With ``sampled`` a step on input_size numbers takes the expectation, and one that is given
    the noise as well is random; training does that.
    """
    inner = _make(cell, input_size, hidden_size, recurrent_init)
    mean, drawn = zoneout(inner, rate=rate), zoneout(inner, rate=rate, sampled=True)
    if not sampled:
        return mean

    def choose(mean: Callable, drawn: Callable) -> Callable:
        return lambda params, carry, x: (mean if x.shape[-1] == input_size else drawn)(
            params, carry, x
        )

    return drawn._replace(
        step=choose(mean.step, drawn.step),
        gates=choose(mean.gates, drawn.gates) if mean.gates and drawn.gates else None,
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
    """The cell named, with a mask on W_h: `gradflow.cells.masks.recurrent_mask`."""
    inner = _make(cell, input_size, hidden_size, recurrent_init)
    return with_recurrent_mask(inner, recurrent_mask(pattern, hidden_size, num_layers=num_layers))


def _make(
    spec: str, input_size: int, hidden_size: int, recurrent_init: RecurrentInit | None
) -> Cell:
    from gradflow.cells import resolve  # which knows these cells too, and so cannot come first

    options = {} if recurrent_init is None else {"recurrent_init": recurrent_init}
    return resolve(spec)(input_size, hidden_size, **options)
