"""The four input and output shapes of a recurrent model, as pure functions.

All arrays are time-major, (T, size) for one sequence and (T, B, size) for a batch of them.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gradflow.cell import Carry, Cell, Key, Params
from gradflow.spec import check_name
from gradflow.unroll import Lengths, unroll

Sequence = Float[Array, "_ *batch _"]
Vector = Float[Array, "*batch _"]

THEN = ("output", "repeat", "zero")


class Model(NamedTuple):
    """A network over cells: a value made by a plain function, hashable as a cell is.

    Attributes:
      init: key -> parameters.
      apply: (params, inputs, ...) -> outputs; its maker documents further arguments.
    """

    init: Callable[[Key], Params]
    apply: Callable[..., Array]


def many_to_many(cell: Cell) -> Model:
    """Maps a sequence to a sequence of the same length: h_t at every step.

    ``apply(params, inputs, *, lengths=None)`` returns (T, *batch, hidden). A padded step repeats
    the last real h.
    """

    def apply(params: Params, inputs: Sequence, *, lengths: Lengths | None = None) -> Sequence:
        return unroll(cell, params, inputs, lengths=lengths).outputs

    return Model(cell.init, apply)


def many_to_one(cell: Cell) -> Model:
    """Maps a sequence to a vector: h at its last real step.

    ``apply(params, inputs, *, lengths=None)`` returns (*batch, hidden).
    """

    def apply(params: Params, inputs: Sequence, *, lengths: Lengths | None = None) -> Vector:
        return unroll(cell, params, inputs, lengths=lengths).outputs[-1]

    return Model(cell.init, apply)


def one_to_many(cell: Cell, num_steps: int, *, then: str = "repeat") -> Model:
    """Maps a vector to a sequence of ``num_steps``: x_1 is the vector, the outputs are h_t.

    ``apply(params, x)`` takes (*batch, input) and returns (num_steps, *batch, hidden).

    Args:
      cell: The cell. With ``then="output"`` its input is as large as its h.
      num_steps: The length of the sequence.
      then: The input after the first step: ``repeat`` is x again, ``zero`` is zeros, and ``output``
        is h_{t-1}, so that the network runs autoregressively.

    Raises:
      ValueError: If there is no step, the kind of input is unknown, or, when it is applied, x
        does not have the size of h with ``then="output"``.
    """
    if num_steps < 1:
        raise ValueError(f"Expected num_steps to be at least 1, got {num_steps}.")
    check_name("input after the first step", then, THEN)
    fed_back = cell._replace(step=lambda params, s, _: cell.step(params, s, cell.hidden(s)))

    def apply(params: Params, x: Vector) -> Sequence:
        if then != "output":
            rest = jnp.broadcast_to(x if then == "repeat" else 0 * x, (num_steps - 1, *x.shape))
            return unroll(cell, params, jnp.concatenate([x[None], rest])).outputs
        size = jax.eval_shape(lambda: cell.hidden(cell.initial_carry())).size
        if x.shape[-1] != size:
            raise ValueError(
                f"Expected x of the size of h, {size}, for then='output', got {x.shape}. Make the "
                "sizes equal, or use then='repeat'."
            )
        first = unroll(cell, params, x[None])
        if num_steps == 1:
            return first.outputs
        ignored = jnp.zeros((num_steps - 1, *x.shape[:-1], 1), x.dtype)
        rest = unroll(fed_back, params, ignored, carry=_last(first.carries)).outputs
        return jnp.concatenate([first.outputs, rest])

    return Model(cell.init, apply)


def encoder_decoder(encoder: Cell, decoder: Cell, *, context: bool = False) -> Model:
    """Maps a sequence to one of another length; the decoder starts from the encoder's last carry.

    ``apply(params, inputs, targets, *, lengths=None)`` takes (T, *batch, input), the inputs of
    the decoder of shape (S, *batch, target), which in training are the targets shifted by one
    step, and the numbers of real steps in ``inputs``; it returns the decoder's h, (S, *batch,
    hidden). The parameters are ``params["encoder"]`` and ``params["decoder"]``.

    Args:
      encoder: Reads the inputs.
      decoder: A cell with the same structure of its carry.
      context: Whether the encoder's last h is appended to each input of the decoder, [y_s; h_T],
        whose input size is then target + hidden.

    Raises:
      ValueError: If the carries have different structures or shapes.

    Source: Sutskever, Vinyals, Le 2014, arXiv:1409.3215; Cho et al. 2014, arXiv:1406.1078
    (context).
    """
    carries = [jax.eval_shape(cell.initial_carry) for cell in (encoder, decoder)]
    if not _alike(*carries):
        raise ValueError(
            f"Expected an encoder and a decoder with the same carry, got {carries[0]} and "
            f"{carries[1]}. Use one kind of cell and one hidden size."
        )

    def init(key: Key) -> Params:
        k_encoder, k_decoder = jax.random.split(key)
        return {"encoder": encoder.init(k_encoder), "decoder": decoder.init(k_decoder)}

    def apply(
        params: Params, inputs: Sequence, targets: Sequence, *, lengths: Lengths | None = None
    ) -> Sequence:
        read = unroll(encoder, params["encoder"], inputs, lengths=lengths)
        if context:
            h = jnp.broadcast_to(read.outputs[-1], (len(targets), *read.outputs.shape[1:]))
            targets = jnp.concatenate([targets, h], axis=-1)
        carry = _last(read.carries)
        return unroll(decoder, params["decoder"], targets, carry=carry).outputs

    return Model(init, apply)


def _last(carries: Carry) -> Carry:
    return jax.tree.map(lambda leaf: leaf[-1], carries)


def _alike(one: Carry, other: Carry) -> bool:
    return jax.tree.structure(one) == jax.tree.structure(other) and all(
        a.shape == b.shape
        for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    )
