"""The time of `adjoints` and `components`, relative to one `jax.value_and_grad` of the same loss.

Medians of alternating runs in one process.

    python benchmarks/adjoints.py --cells=rnn,gru,lstm --hidden_sizes=64,256 --num_steps=200
"""

from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp
from absl import app, flags
from timing import medians, print_head, print_row, set_up

from gradflow.cell import Cell, Params
from gradflow.cells import resolve
from gradflow.flow import adjoints, component_map, components
from gradflow.unroll import unroll

_CELLS = flags.DEFINE_list("cells", ["rnn", "gru", "lstm"], "Cells by name.")
_HIDDEN_SIZES = flags.DEFINE_list("hidden_sizes", ["64", "256"], "Hidden sizes.")
_NUM_STEPS = flags.DEFINE_integer("num_steps", 200, "Length T of the sequence.", lower_bound=1)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 1, "Sequences under vmap.", lower_bound=1)
_REPEATS = flags.DEFINE_integer("repeats", 9, "Timed runs of each.", lower_bound=1)
_MAP = flags.DEFINE_boolean("map", False, "Measure component_map as well: T times the work.")
_X64 = flags.DEFINE_boolean("x64", True, "Float64.")


def losses(outputs: jax.Array) -> jax.Array:
    """A loss at every step, none of whose derivatives is constant."""
    return jnp.mean(jnp.sin(outputs), axis=-1)


def loss(outputs: jax.Array) -> jax.Array:
    """The sum of the losses."""
    return jnp.sum(losses(outputs))


def gradient(cell: Cell, params: Params, inputs: jax.Array) -> tuple[jax.Array, Params]:
    """The loss of a batch and ∂L/∂θ, the reference."""

    def total(params: Params) -> jax.Array:
        outputs = jax.vmap(lambda x: unroll(cell, params, x).outputs)(inputs)
        return jnp.sum(jax.vmap(loss)(outputs))

    return jax.value_and_grad(total)(params)


def contestants(cell: Cell) -> dict[str, Callable]:
    """Functions of the parameters and a batch, the reference first."""

    def by_sequence(measure: Callable, **of: Callable) -> Callable:
        return jax.vmap(partial(measure, cell, **of), in_axes=(None, 0))

    measured = {
        "value_and_grad": partial(gradient, cell),
        "adjoints": by_sequence(adjoints, loss=loss),
        "components": by_sequence(components, loss=loss),
    }
    return measured | (
        {"component_map": by_sequence(component_map, losses=losses)} if _MAP.value else {}
    )


def seconds(name: str, hidden_size: int) -> dict[str, float]:
    """The median time of each contestant in seconds."""
    cell = resolve(name)(hidden_size, hidden_size)
    params = cell.init(jax.random.key(0))
    shape = (_BATCH_SIZE.value, _NUM_STEPS.value, hidden_size)
    inputs = jax.random.normal(jax.random.key(1), shape)
    runs = {
        label: partial(jax.jit(function), params, inputs)
        for label, function in contestants(cell).items()
    }
    return medians(runs, _REPEATS.value)


def main(argv: Sequence[str]) -> None:
    """Prints the table."""
    set_up(argv, x64=_X64.value)
    labels = list(contestants(resolve("rnn")(1, 1)))[1:]
    print_head("cell", "hidden", "T", "batch", "value_and_grad, ms", *labels)
    for name in _CELLS.value:
        for hidden_size in map(int, _HIDDEN_SIZES.value):
            base, *others = seconds(name, hidden_size).values()
            sizes = hidden_size, _NUM_STEPS.value, _BATCH_SIZE.value
            ratios = (f"{other / base:.2f}x" for other in others)
            print_row(name, *sizes, f"{1e3 * base:.2f}", *ratios)


if __name__ == "__main__":
    app.run(main)
