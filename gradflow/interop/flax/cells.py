"""Conversion between the recurrent cells of Flax (Linen and NNX) and of gradflow."""

from collections.abc import Callable
from typing import Any, cast

import jax
import jax.numpy as jnp
from flax import linen, nnx
from jaxtyping import Array, Float

from gradflow.cell import Carry, Cell, Key, Params, StepFn

Select = Callable[[Carry], Float[Array, " hidden"]]


def from_linen(module: linen.Module, input_size: int) -> Cell:
    """Converts a Linen cell, such as ``linen.GRUCell(features=64)``, to a cell.

    The parameters are Linen's ``variables["params"]``, and the carry is Linen's as well, for
    example (c, h) for an LSTM. h is the leaf of the carry that equals the cell's output. Parameters
    and initial carry are converted to JAX's default float, which is 64 bits if x64 is on; Linen
    initialises them in 32 bits.

    Raises:
      TypeError: If the module is not a Linen cell.
      ValueError: If its output is not a vector in its carry, or has another float type.
    """
    if not isinstance(module, linen.RNNCellBase):
        raise TypeError(
            f"Expected a Linen cell, got {type(module).__name__}. Pass an unbound module, for "
            "example linen.GRUCell(features=64)."
        )

    def initial_carry() -> Carry:
        return _default_float(module.initialize_carry(jax.random.key(0), (input_size,)))

    def init(key: Key) -> Params:
        variables = module.init(key, initial_carry(), jnp.zeros(input_size))
        return _default_float(variables["params"])

    def step(params: Params, carry: Carry, x: Array) -> tuple[Carry, Array]:
        return cast(tuple[Carry, Array], module.apply({"params": params}, carry, x))

    return Cell(init, step, initial_carry, _find_hidden(init, step, initial_carry, input_size))


def from_nnx(make: Callable[[nnx.Rngs], nnx.Module], input_size: int) -> Cell:
    """Converts an NNX cell to a cell, from a function that makes the NNX module.

    A function is needed, because an NNX module is initialised when it is made. The parameters of
    ``from_nnx(lambda rngs: nnx.GRUCell(3, 64, rngs=rngs), 3)`` are a dictionary; `nnx_params` gets
    them from an existing module. Carry, h and float type are as in `from_linen`. The step is
    Flax's: ``nnx.GRUCell`` of Flax 0.12 has no hidden bias b_h in its candidate, unlike
    ``linen.GRUCell`` and `gradflow.cells.gru`.

    Raises:
      TypeError: If the function does not make an NNX cell.
      ValueError: If its output is not a vector in its carry, or has another float type.
    """
    module = make(nnx.Rngs(0))
    if not isinstance(module, nnx.RNNCellBase):
        raise TypeError(
            f"Expected a function that makes an NNX cell, got {type(module).__name__} from it. "
            "Pass, for example, lambda rngs: nnx.GRUCell(3, 64, rngs=rngs)."
        )
    graph, state, rest = nnx.split(module, nnx.Param, ...)

    def initial_carry() -> Carry:
        return _default_float(module.initialize_carry((input_size,), nnx.Rngs(0)))

    def init(key: Key) -> Params:
        return _default_float(nnx_params(make(nnx.Rngs(key))))

    def step(params: Params, carry: Carry, x: Array) -> tuple[Carry, Array]:
        own = jax.tree.map(lambda leaf: leaf, state)  # a copy, because the next line mutates it
        nnx.replace_by_pure_dict(own, params)
        carry, h = nnx.merge(graph, own, rest)(carry, x)
        return carry, h

    return Cell(init, step, initial_carry, _find_hidden(init, step, initial_carry, input_size))


def nnx_params(module: nnx.Module) -> Params:
    """Returns the current parameters of an NNX module, as the steps of `from_nnx` take them."""
    return nnx.to_pure_dict(nnx.state(module, nnx.Param))


class LinenCell(linen.RNNCellBase):
    """A gradflow cell as a Linen module, for ``linen.RNN``; see `as_linen`."""

    cell: Cell

    @linen.compact
    def __call__(self, carry: Carry, inputs: Array) -> tuple[Carry, Array]:
        """Runs one step; all axes of the inputs but the last are batch axes."""
        params = self.param("cell", self.cell.init)
        return _batched(self.cell.step, inputs.ndim - 1)(params, carry, inputs)

    @linen.nowrap
    def initialize_carry(self, rng: Any, input_shape: tuple[int, ...]) -> Carry:
        """Returns s_0 for each example of inputs of that shape."""
        del rng  # s_0 is not random
        return _for_batch(self.cell, input_shape)

    @property
    def num_feature_axes(self) -> int:
        """Returns 1, because an input is a vector."""
        return 1


class NnxCell(nnx.RNNCellBase):
    """A gradflow cell as an NNX module, for ``nnx.RNN``; see `as_nnx`.

    Attributes:
      params: The cell's parameters, each leaf an ``nnx.Param``.
    """

    def __init__(self, cell: Cell, *, rngs: nnx.Rngs) -> None:
        self.cell = nnx.static(cell)
        self.params = nnx.data(jax.tree.map(nnx.Param, cell.init(rngs.params())))

    def __call__(self, carry: Carry, inputs: Array) -> tuple[Carry, Array]:
        """Runs one step; all axes of the inputs but the last are batch axes."""
        is_variable = lambda leaf: isinstance(leaf, nnx.Variable)  # noqa: E731
        params = jax.tree.map(lambda leaf: leaf[...], self.params, is_leaf=is_variable)
        return _batched(self.cell.step, inputs.ndim - 1)(params, carry, inputs)

    def initialize_carry(
        self, input_shape: tuple[int, ...], rngs: Any = None, carry_init: Any = None
    ) -> Carry:
        """Returns the cell's s_0, which is not random, for each example of that input shape."""
        del rngs, carry_init
        return _for_batch(self.cell, input_shape)

    @property
    def num_feature_axes(self) -> int:
        """Returns 1, because an input is a vector."""
        return 1


def as_linen(cell: Cell) -> LinenCell:
    """Converts a cell to a Linen module: ``linen.RNN(as_linen(lstm(3, 64)))``.

    The parameters of the module are those of the cell, under the name ``cell``.
    """
    return LinenCell(cell)


def as_nnx(cell: Cell, *, rngs: nnx.Rngs) -> NnxCell:
    """Converts a cell to an NNX module: ``nnx.RNN(as_nnx(lstm(3, 64), rngs=nnx.Rngs(0)))``."""
    return NnxCell(cell, rngs=rngs)


def _default_float(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, float), tree)


def _batched(step: StepFn, num_axes: int) -> Callable[..., tuple[Carry, Array]]:
    for _ in range(num_axes):
        step = jax.vmap(step, in_axes=(None, 0, 0))
    return step


def _for_batch(cell: Cell, input_shape: tuple[int, ...]) -> Carry:
    return jax.tree.map(
        lambda leaf: jnp.broadcast_to(leaf, (*input_shape[:-1], *leaf.shape)), cell.initial_carry()
    )


def _find_hidden(
    init: Callable[[Key], Params],
    step: StepFn,
    initial_carry: Callable[[], Carry],
    input_size: int,
) -> Select:
    """Finds the leaf of the carry that is h: the one that equals the output of a step.

    The step runs on random values, because leaves that are all zero could not be told apart.
    """
    key = jax.random.key(0)
    noise = lambda leaf: leaf + jax.random.normal(key, leaf.shape)  # noqa: E731
    carry = jax.tree.map(noise, initial_carry())
    new, h = step(init(key), carry, noise(jnp.zeros(input_size)))
    if h.dtype != jnp.zeros(()).dtype:
        raise ValueError(
            f"Expected a cell that computes in {jnp.zeros(()).dtype}, the dtype of its arguments, "
            f"got {h.dtype}. Make it with dtype=None or dtype={jnp.zeros(()).dtype}."
        )
    for index, leaf in enumerate(jax.tree.leaves(new)):
        if leaf.ndim == 1 and leaf.shape == h.shape and bool((leaf == h).all()):
            return lambda carry: jax.tree.leaves(carry)[index]
    raise ValueError(
        f"Expected a cell whose output is a vector in its carry, got an output of shape {h.shape} "
        f"and a carry of shapes {jax.tree.map(jnp.shape, new)}. Write a gradflow.Cell that calls "
        "it and adds the output to the carry."
    )
