"""What is timed of ours: the gradient of mean(h²) with respect to the parameters of a cell."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from gradflow import unroll
from gradflow.cells import CELLS
from gradflow.devices import sum_over_batch


@dataclasses.dataclass(frozen=True)
class Shape:
    """What is run."""

    batch: int
    num_steps: int
    input_size: int
    hidden_size: int

    @classmethod
    def parse(cls, text: str) -> "Shape":
        """From ``batch x T x input x hidden`` without the blanks."""
        return cls(*map(int, text.split("x")))

    @property
    def inputs(self) -> tuple[int, int, int]:
        """The inputs' shape, time first."""
        return self.num_steps, self.batch, self.input_size

    @property
    def outputs(self) -> int:
        """How many numbers h are."""
        return self.num_steps * self.batch * self.hidden_size


def gradient(name: str, shape: Shape, method: str, remat: str = "none") -> tuple[Any, Any]:
    """The jitted gradient, the batch shared out to all devices, and its arguments."""
    cell = CELLS[name](shape.input_size, shape.hidden_size)
    arguments = cell.init(jax.random.key(0)), jax.random.normal(jax.random.key(1), shape.inputs)

    def share(params: Any, inputs: jax.Array) -> tuple[Any, tuple[()]]:
        def loss(params: Any) -> jax.Array:
            h = unroll(cell, params, inputs, method=method, remat=remat).outputs
            return jnp.sum(h**2) / shape.outputs

        return jax.grad(loss)(params), ()

    return jax.jit(lambda params, inputs: sum_over_batch(share, params, inputs)[0]), arguments


def ready(jitted: Any, arguments: Any) -> Callable[[], Any]:
    """A call of the compiled function, whose arguments are where it takes them."""
    compiled = jitted.lower(*arguments).compile()
    placed = jax.device_put(arguments, compiled.input_shardings[0])
    return lambda: jax.block_until_ready(compiled(*placed))
