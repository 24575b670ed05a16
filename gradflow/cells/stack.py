"""Stacks of cells as one cell."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gradflow.cell import Carry, Cell, Key, NoiseFn, Params, param_shapes, split_key
from gradflow.cells.dropout import with_noise
from gradflow.spec import check_name

SKIPS = ("input", "residual")


class _LayerStep(NamedTuple):
    """The input and the results of one layer at one step."""

    x: Array
    carry: Carry
    h: Array


def stack(cells: Sequence[Cell], *, skip: str | None = None) -> Cell:
    """Stacks cells: the output h of a layer is the input of the layer above it.

    With x_t^0 = x_t, for the layers l = 0 ... L - 1::

        s_t^l, h_t^l = step_l(s_{t-1}^l, x_t^l)
        x_t^{l+1} = h_t^l                     by default
                  = [h_t^l; x_t]              with skip "input"
                  = h_t^l + x_t^l             with skip "residual", but h_t^0 for l = 0

    The carry and the parameters are tuples over the layers; h is that of the top layer. The step
    Jacobian is block lower triangular in the layers, because no layer depends on a layer above it.
    A gate is named by its layer, for example ``0.f`` for f of the lowest layer, and so is a block
    of the carry, for example ``0.c``.

    Args:
      cells: The layers, the lowest first.
      skip: The kind of skip connection. With "input" all layers but the first take inputs of size
        hidden + input; with "residual" all layers have the same size.

    Raises:
      ValueError: If there is no layer, the sizes of two layers do not match, or the kind of skip
        connection is unknown. Also, when noise is sampled, if a layer above the lowest takes
        noise as a part of its input.

    Source: Schmidhuber 1992, doi:10.1162/neco.1992.4.2.234 (stacks); Graves 2013,
    arXiv:1308.0850 (skip "input"); Wu et al. 2016, arXiv:1609.08144, eq. 6 (skip "residual").
    """
    cells = tuple(cells)
    if not cells:
        raise ValueError("Expected a stack of at least one cell, got none. Add a cell.")
    if skip is not None:
        check_name("kind of skip connection", skip, SKIPS)
    if skip != "input":  # with it, a layer's input size depends on the size of x
        _check_sizes(cells, skip)

    def init(key: Key) -> Params:
        keys = split_key(key, len(cells))
        return tuple(cell.init(k) for cell, k in zip(cells, keys, strict=True))

    def run_layers(params: Params, carry: Carry, x: Array) -> list[_LayerStep]:
        done: list[_LayerStep] = []
        for layer, cell in enumerate(cells):
            x_l = _next_input(done, x, skip)
            done.append(_LayerStep(x_l, *_run(layer, cell, params[layer], carry[layer], x_l)))
        return done

    def step(params: Params, carry: Carry, x: Array) -> tuple[Carry, Array]:
        done = run_layers(params, carry, x)
        return tuple(layer.carry for layer in done), done[-1].h

    def gates(params: Params, carry: Carry, x: Array) -> dict[str, Array]:
        found = {}
        for layer, (cell, p) in enumerate(zip(cells, run_layers(params, carry, x), strict=True)):
            own = cell.gates(params[layer], carry[layer], p.x) if cell.gates else {}
            found |= {f"{layer}.{name}": value for name, value in own.items()}
        return found

    return Cell(
        init=init,
        step=step,
        initial_carry=lambda: tuple(cell.initial_carry() for cell in cells),
        hidden=lambda carry: cells[-1].hidden(carry[-1]),
        gates=gates if any(cell.gates for cell in cells) else None,
        noise=_noise_of(cells) if any(cell.noise for cell in cells) else None,
    )


def _noise_of(cells: Sequence[Cell]) -> NoiseFn:
    """Joins the noise of all layers. Only the lowest may take noise as a part of its input."""

    def noise(key: Key | None, params: Params, inputs: Array) -> tuple[Params, Array]:
        keys = [None] * len(cells) if key is None else jax.random.split(key, len(cells))
        noisy = [with_noise(c, k, p, inputs) for c, k, p in zip(cells, keys, params, strict=True)]
        for layer, (_, x) in enumerate(noisy[1:], start=1):
            if x.shape != inputs.shape:
                raise ValueError(
                    "Expected noise in the input of the lowest layer only, got it in the input of "
                    f"layer {layer} (counted from 0). Remove sampled=True from that layer."
                )
        return tuple(p for p, _ in noisy), noisy[0][1]

    return noise


def _next_input(done: list[_LayerStep], x: Array, skip: str | None) -> Float[Array, " size"]:
    if not done:
        return x
    below = done[-1]
    h = below.h.ravel()  # h may be an image, and the layer above takes a vector
    if skip == "input":
        return jnp.concatenate([h, x])
    return h + below.x if skip == "residual" and len(done) > 1 else h


def _run(layer: int, cell: Cell, params: Params, carry: Carry, x: Array) -> tuple[Any, Array]:
    try:
        return cell.step(params, carry, x)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"Expected layer {layer} of the stack (counted from 0) to take an input of size "
            f"{x.shape[-1]}, got parameters of shapes {jax.tree.map(jnp.shape, params)}, whose "
            f"step raises: {error}. Make this layer with input_size={x.shape[-1]}."
        ) from error


def _check_sizes(cells: Sequence[Cell], skip: str | None) -> None:
    """Traces the step of each layer above the first with the h of the layer below it."""
    sizes = [jax.eval_shape(lambda c=cell: c.hidden(c.initial_carry())).size for cell in cells]
    for layer, cell in enumerate(cells[1:], start=1):
        if skip == "residual" and sizes[layer] != sizes[layer - 1]:
            raise ValueError(
                f"Expected layers of equal size with skip='residual', got hidden sizes {sizes}. "
                "Make them equal, or remove skip."
            )
        jax.eval_shape(
            lambda params, carry, h, n=layer, c=cell: _run(n, c, params, carry, h),
            param_shapes(cell),
            jax.eval_shape(cell.initial_carry),
            jax.ShapeDtypeStruct((sizes[layer - 1],), jnp.zeros(()).dtype),
        )
