"""Networks over a sequence by name: ``gru``, ``bi_lstm(pooling='max')``, ``conv``."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax.numpy as jnp

from gradflow.cell import Cell, Params
from gradflow.cells import resolve
from gradflow.models.bidirectional import bidirectional
from gradflow.models.pooling import POOLINGS, convolution, pooled
from gradflow.models.shapes import Model, Sequence, Vector, many_to_many, many_to_one
from gradflow.spec import check_name, parse_spec
from gradflow.unroll import unroll


class Net(NamedTuple):
    """The layers of a network, and the cell whose gradient flow is measured.

    Attributes:
      layers: From the first to the last, which returns one vector.
      cell: The forward cell of the first layer; None without recurrence.
      cell_spec: Its spec, as `gradflow.cells.resolve` takes it.
      recurrent_dropout: The rate for `classification.text.text_classifier`.
      above: (parameters of all layers, h_1 ... h_L of that cell, x_1 ... x_L) -> the output of the
        last layer for one sequence without padding: the rest of the network as a function of h.
    """

    layers: tuple[Model, ...]
    cell: Cell | None
    cell_spec: str = ""
    recurrent_dropout: float = 0.0
    above: Callable[[Params, Sequence, Sequence], Vector] | None = None

    def cell_params(self, layers: Params) -> Params:
        """Selects the parameters of that cell."""
        return layers[0].get("forward", layers[0])


def resolve_net(spec: str, input_size: int, hidden_size: int) -> Net:
    """Makes the network of a spec.

    Any cell, as `gradflow.cells.resolve` finds it, is one layer in one direction. The prefix
    ``bi_`` adds a backward cell, ``two_`` a second layer. The option ``pooling`` chooses the
    output: ``last``, the h after the last step of each direction, or the ``max`` or ``mean`` over
    all steps; ``recurrent_dropout`` is a rate. ``conv`` is a convolution of ``width`` steps with
    max pooling over time.

    Raises:
      ValueError: For an unknown cell, option or pooling, a rate that is not in [0, 1), or a width
        that is no number of steps.
    """
    name, options = parse_spec(spec)
    if name == "conv":
        width = options.pop("width", 3)
        if options or not isinstance(width, int) or width < 1:
            raise ValueError(f"Expected conv or conv(width=3), got {spec!r}.")
        return Net((pooled(convolution(input_size, hidden_size, width)),), None)
    pooling = options.pop("pooling", "last")
    check_name("pooling", str(pooling), ("last", *POOLINGS))
    rate = options.pop("recurrent_dropout", 0.0)
    if not isinstance(rate, int | float) or not 0 <= rate < 1:
        raise ValueError(f"Expected recurrent_dropout in [0, 1), got {rate!r} in {spec!r}.")
    kind = next((kind for kind in ("bi", "two") if name.startswith(f"{kind}_")), "")
    cell_name = name.removeprefix(f"{kind}_") if kind else name
    given = ", ".join(f"{option}={value!r}" for option, value in options.items())
    cell_spec = f"{cell_name}({given})" if given else cell_name
    make = resolve(cell_spec)
    first = make(input_size, hidden_size)
    top = make(hidden_size, hidden_size) if kind == "two" else first
    lower = (many_to_many(first),) if kind == "two" else ()
    layers = (*lower, _read(kind, top, pooling))
    return Net(layers, first, cell_spec, float(rate), partial(_above, kind, top, pooling))


def _read(kind: str, cell: Cell, pooling: str) -> Model:
    """The last layer, which returns one vector."""
    last = pooling == "last"
    if kind == "bi":
        both = bidirectional(cell, cell, last=last)
        return both if last else pooled(both, pooling)
    return many_to_one(cell) if last else pooled(many_to_many(cell), pooling)


def _above(
    kind: str, top: Cell, pooling: str, layers: Params, h: Sequence, inputs: Sequence
) -> Vector:
    if kind == "two":
        return _read("", top, pooling).apply(layers[1], h)
    if kind == "bi":
        back = unroll(top, layers[0]["backward"], inputs[::-1]).outputs
        if pooling == "last":
            return jnp.concatenate([h[-1], back[-1]])
        h = jnp.concatenate([h, back[::-1]], axis=-1)
    return {"last": h[-1], "max": jnp.max(h, axis=0), "mean": jnp.mean(h, axis=0)}[pooling]
