"""Depth: cells on top of each other, as one cell."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gradflow.cell import Carry, Cell, Key, NoiseFn, Params
from gradflow.cells.dropout import with_noise
from gradflow.spec import check_name

SKIPS = ("input", "residual")


class _Passed(NamedTuple):
    """What one layer took and gave at one step."""

    x: Array
    carry: Carry
    h: Array


def stack(cells: Sequence[Cell], *, skip: str | None = None) -> Cell:
    """The cells on top of each other: the h of a layer is the input of the one above.

    With x_t^0 = x_t, for the layers l = 0 ... L - 1::

        s_t^l, h_t^l = step_l(s_{t-1}^l, x_t^l)
        x_t^{l+1} = h_t^l                     by default
                  = [h_t^l; x_t]              with skip "input"
                  = h_t^l + x_t^l             with skip "residual", but h_t^0 for l = 0

    Carry and parameters are the tuples of the layers'; h is that of the top layer. The step
    Jacobian is block lower triangular in the layers, as no layer hears from one above it. The
    gates are the layers', as ``0.f`` for f of the lowest; a block of the carry is ``0.c``.

    Args:
      cells: The layers, the lowest first.
      skip: How else a layer's input gets upwards. Under "input" all layers but the first take
        hidden + input numbers; under "residual" all layers have one size.

    Raises:
      ValueError: If there is no layer, a layer does not take what the one below it gives, or
        the kind of skip is unknown; and, when noise is drawn, if a layer above the lowest has it
        in its inputs.

    Source: Schmidhuber 1992, doi:10.1162/neco.1992.4.2.234 (stacks); Graves 2013,
    arXiv:1308.0850 (skip "input"); Wu et al. 2016, arXiv:1609.08144, eq. 6 (skip "residual").
    """
    cells = tuple(cells)
    if not cells:
        raise ValueError("a stack of at least one cell is expected, got none: give its layers")
    if skip is not None:
        check_name("kind of skip", skip, SKIPS)
    if skip != "input":  # with it, a layer's input has a size that only the data know
        _check_sizes(cells, skip)

    def init(key: Key) -> Params:
        keys = jax.random.split(key, len(cells))
        return tuple(cell.init(k) for cell, k in zip(cells, keys, strict=True))

    def climb(params: Params, carry: Carry, x: Array) -> list[_Passed]:
        passed: list[_Passed] = []
        for layer, cell in enumerate(cells):
            x_l = _next_input(passed, x, skip)
            passed.append(_Passed(x_l, *_run(layer, cell, params[layer], carry[layer], x_l)))
        return passed

    def step(params: Params, carry: Carry, x: Array) -> tuple[Carry, Array]:
        passed = climb(params, carry, x)
        return tuple(p.carry for p in passed), passed[-1].h

    def gates(params: Params, carry: Carry, x: Array) -> dict[str, Array]:
        found = {}
        for layer, (cell, p) in enumerate(zip(cells, climb(params, carry, x), strict=True)):
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
    """The noise of all layers, of which the lowest alone may have it in its inputs."""

    def noise(key: Key | None, params: Params, inputs: Array) -> tuple[Params, Array]:
        keys = [None] * len(cells) if key is None else jax.random.split(key, len(cells))
        drawn = [with_noise(c, k, p, inputs) for c, k, p in zip(cells, keys, params, strict=True)]
        for layer, (_, x) in enumerate(drawn[1:], start=1):
            if x.shape != inputs.shape:
                raise ValueError(
                    f"noise in the inputs of the lowest layer alone is expected, got layer {layer} "
                    "(from 0), whose step takes some with the h below it: leave sampled out there"
                )
        return tuple(p for p, _ in drawn), drawn[0][1]

    return noise


def _next_input(passed: list[_Passed], x: Array, skip: str | None) -> Float[Array, " size"]:
    if not passed:
        return x
    below = passed[-1]
    if skip == "input":
        return jnp.concatenate([below.h, x])
    return below.h + below.x if skip == "residual" and len(passed) > 1 else below.h


def _run(layer: int, cell: Cell, params: Params, carry: Carry, x: Array) -> tuple[Any, Array]:
    try:
        return cell.step(params, carry, x)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"layer {layer} of the stack (from 0) is expected to take an input of size "
            f"{x.shape[-1]}, which is what it gets, but its step with parameters of shapes "
            f"{jax.tree.map(jnp.shape, params)} came to {error}: make it with "
            f"input_size={x.shape[-1]}"
        ) from error


def _check_sizes(cells: Sequence[Cell], skip: str | None) -> None:
    """Traces each layer above the first on the h of the one below it."""
    key = jax.eval_shape(jax.random.key, 0)
    sizes = [jax.eval_shape(lambda c=cell: c.hidden(c.initial_carry())).size for cell in cells]
    for layer, cell in enumerate(cells[1:], start=1):
        if skip == "residual" and sizes[layer] != sizes[layer - 1]:
            raise ValueError(
                f"layers of one size are expected with skip='residual', got hidden sizes {sizes}: "
                "make them equal, or leave the skip out"
            )
        jax.eval_shape(
            lambda params, carry, h, n=layer, c=cell: _run(n, c, params, carry, h),
            jax.eval_shape(cell.init, key),
            jax.eval_shape(cell.initial_carry),
            jax.ShapeDtypeStruct((sizes[layer - 1],), jnp.zeros(()).dtype),
        )
