"""Contestants that several benchmarks run: gradients of a training, and bare matrix products."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradflow.cell import Params
from gradflow.cells import CELLS
from gradflow.devices import sum_over_batch
from gradflow.unroll import unroll


class Shape(NamedTuple):
    """Sizes of a cell and its batch."""

    batch: int
    num_steps: int
    input_size: int
    hidden_size: int

    @classmethod
    def parse(cls, text: str) -> "Shape":
        """Parses ``batch x T x input x hidden``, without blanks."""
        return cls(*map(int, text.split("x")))

    @property
    def inputs(self) -> tuple[int, int, int]:
        """The shape of the inputs."""
        return self.num_steps, self.batch, self.input_size


def gradient(
    name: str, shape: Shape, method: str, remat: str = "none", dtype: Any = jnp.float32
) -> tuple[Any, Any]:
    """The jitted gradient of our cell, distributed over all devices, and its arguments."""
    cell = CELLS[name](shape.input_size, shape.hidden_size)
    params, inputs = (
        cell.init(jax.random.key(0)),
        jax.random.normal(jax.random.key(1), shape.inputs),
    )
    arguments = jax.tree.map(lambda leaf: leaf.astype(dtype), (params, inputs))
    size = shape.num_steps * shape.batch * shape.hidden_size

    def of_share(params: Any, inputs: jax.Array) -> tuple[Any, tuple[()]]:
        def loss(params: Any) -> jax.Array:
            h = unroll(cell, params, inputs, method=method, remat=remat).outputs
            return jnp.sum(h**2) / size

        return jax.grad(loss)(params), ()

    return jax.jit(lambda params, inputs: sum_over_batch(of_share, params, inputs)[0]), arguments


def flax_gradient(name: str, shape: Shape) -> tuple[Any, Any]:
    """The same with Flax Linen's cell."""
    from flax import linen as nn

    kinds = {"lstm": nn.OptimizedLSTMCell, "gru": nn.GRUCell, "rnn": nn.SimpleCell}
    model = nn.RNN(kinds[name](shape.hidden_size), time_major=True)
    inputs = jax.random.normal(jax.random.key(1), shape.inputs, jnp.float32)
    params = model.init(jax.random.key(0), inputs)

    def loss(params: Any, inputs: jax.Array) -> jax.Array:
        return jnp.mean(jnp.square(jnp.asarray(model.apply(params, inputs))))

    return jax.jit(jax.grad(loss)), (params, inputs)


def compiled(jitted: Any, arguments: Any) -> Callable[[], Any]:
    """Compiles a run, with its arguments where the program wants them.

    Otherwise every run would move them to the devices again.
    """
    program = jitted.lower(*arguments).compile()
    placed = jax.device_put(arguments, program.input_shardings[0])
    return lambda: jax.block_until_ready(program(*placed))


def torch_run(
    name: str, shape: Shape, device: str = "cpu", dtype: str = "float32"
) -> Callable[[], None]:
    """The same with PyTorch's layer."""
    import torch  # pyright: ignore[reportMissingImports]

    kinds = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU, "rnn": torch.nn.RNN}
    place = {"device": device, "dtype": getattr(torch, dtype)}
    model = kinds[name](shape.input_size, shape.hidden_size, **place)
    inputs = torch.randn(shape.inputs, **place)

    def run() -> None:
        model.zero_grad()
        (model(inputs)[0] ** 2).mean().backward()
        if device == "cuda":
            torch.cuda.synchronize()

    return run


def bare_products(params: Params, num_steps: int) -> Callable[[], jax.Array]:
    """M ← M W_h^i + M W_h^f + M W_h^g + M W_h^o, once per step, with the weights of an LSTM."""
    weights = [params[gate]["W_h"] / 4 for gate in "ifgo"]

    @jax.jit
    def run(rows: jax.Array) -> jax.Array:
        def step(_: int, rows: jax.Array) -> jax.Array:
            products = (jnp.matmul(rows, weight, precision="highest") for weight in weights)
            return sum(products, jnp.zeros_like(rows))

        return jax.lax.fori_loop(0, num_steps, step, rows)

    return partial(run, jnp.eye(len(weights[0]), dtype=weights[0].dtype))
