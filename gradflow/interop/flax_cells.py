"""Flax's recurrent cells, of Linen and of NNX, as gradflow's; and gradflow's as theirs."""

from collections.abc import Callable
from typing import Any, cast

import jax
import jax.numpy as jnp
from flax import linen, nnx
from jaxtyping import Array, Float

from gradflow.cell import Carry, Cell, Key, Params, StepFn

Select = Callable[[Carry], Float[Array, " hidden"]]


def from_linen(module: linen.Module, input_size: int) -> Cell:
    """A Linen cell, such as ``linen.GRUCell(features=64)``, as a cell.

    Parameters are Linen's own, ``variables["params"]``, and so is the carry: (c, h) for an LSTM.
    h is the leaf of the carry that equals the cell's output. Both start in JAX's default
    float, in 64 bits if x64 is on, while Linen draws them in 32.

    Raises:
      TypeError: If the module is not a Linen cell.
      ValueError: If its output is not in its carry, as a vector, or of another float type.
    """
    if not isinstance(module, linen.RNNCellBase):
        raise TypeError(
            f"a Linen cell is expected, got {type(module).__name__}: give a module such as "
            "linen.GRUCell(features=64), not yet bound to parameters"
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
    """An NNX cell as a cell, from a function that makes it: an NNX module is born with its values.

    ``from_nnx(lambda rngs: nnx.GRUCell(3, 64, rngs=rngs), 3)`` has a GRU's parameters as a
    dictionary, which `nnx_params` gives of a module that is there already. Carry, h and float
    type are as in `from_linen`. The step is Flax's with what it lacks: ``nnx.GRUCell`` of Flax
    0.12 has no hidden bias b_h in its candidate, as ``linen.GRUCell`` and `gradflow.cells.gru`
    have.

    Raises:
      TypeError: If what is made is not an NNX cell.
      ValueError: If its output is not in its carry, as a vector, or of another float type.
    """
    module = make(nnx.Rngs(0))
    if not isinstance(module, nnx.RNNCellBase):
        raise TypeError(
            f"a function that makes an NNX cell is expected, got {type(module).__name__} from it: "
            "write lambda rngs: nnx.GRUCell(3, 64, rngs=rngs)"
        )
    graph, state, rest = nnx.split(module, nnx.Param, ...)

    def initial_carry() -> Carry:
        return _default_float(module.initialize_carry((input_size,), nnx.Rngs(0)))

    def init(key: Key) -> Params:
        return _default_float(nnx_params(make(nnx.Rngs(key))))

    def step(params: Params, carry: Carry, x: Array) -> tuple[Carry, Array]:
        own = jax.tree.map(lambda leaf: leaf, state)  # a copy, for what follows is in place
        nnx.replace_by_pure_dict(own, params)
        carry, h = nnx.merge(graph, own, rest)(carry, x)
        return carry, h

    return Cell(init, step, initial_carry, _find_hidden(init, step, initial_carry, input_size))


def nnx_params(module: nnx.Module) -> Params:
    """The parameters of an NNX module as they are, for the steps of `from_nnx`."""
    return nnx.to_pure_dict(nnx.state(module, nnx.Param))


class LinenCell(linen.RNNCellBase):
    """A gradflow cell as a Linen one, to be run by ``linen.RNN``; see `as_linen`."""

    cell: Cell

    @linen.compact
    def __call__(self, carry: Carry, inputs: Array) -> tuple[Carry, Array]:
        """Runs one step; all axes of the inputs but the last are batch axes."""
        params = self.param("cell", self.cell.init)
        return _batched(self.cell.step, inputs.ndim - 1)(params, carry, inputs)

    @linen.nowrap
    def initialize_carry(self, rng: Any, input_shape: tuple[int, ...]) -> Carry:
        """s_0 for each example of inputs of that shape."""
        del rng  # s_0 is not random
        return _for_batch(self.cell, input_shape)

    @property
    def num_feature_axes(self) -> int:
        """1, as an input is a vector."""
        return 1


class NnxCell(nnx.RNNCellBase):
    """A gradflow cell as an NNX one, to be run by ``nnx.RNN``; see `as_nnx`.

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
        """s_0 for each example of inputs of that shape; it is the cell's, and not random."""
        del rngs, carry_init
        return _for_batch(self.cell, input_shape)

    @property
    def num_feature_axes(self) -> int:
        """1, as an input is a vector."""
        return 1


def as_linen(cell: Cell) -> LinenCell:
    """The cell as a Linen module: ``linen.RNN(as_linen(lstm(3, 64)))``.

    Its parameters are the cell's, under the name ``cell``.
    """
    return LinenCell(cell)


def as_nnx(cell: Cell, *, rngs: nnx.Rngs) -> NnxCell:
    """The cell as an NNX module: ``nnx.RNN(as_nnx(lstm(3, 64), rngs=nnx.Rngs(0)))``."""
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
    """Which leaf of the carry is h: the one that equals the output of a step on noise."""
    key = jax.random.key(0)
    noise = lambda leaf: leaf + jax.random.normal(key, leaf.shape)  # noqa: E731
    carry = jax.tree.map(noise, initial_carry())
    new, h = step(init(key), carry, noise(jnp.zeros(input_size)))
    if h.dtype != jnp.zeros(()).dtype:
        raise ValueError(
            f"a cell that computes in {jnp.zeros(()).dtype}, the type of what it is given, is "
            f"expected, got {h.dtype}: make it with dtype=None or dtype={jnp.zeros(()).dtype}"
        )
    for index, leaf in enumerate(jax.tree.leaves(new)):
        if leaf.ndim == 1 and leaf.shape == h.shape and bool((leaf == h).all()):
            return lambda carry: jax.tree.leaves(carry)[index]
    raise ValueError(
        f"a cell whose output is a vector of its carry is expected, got an output of shape "
        f"{h.shape} and a carry of {jax.tree.map(jnp.shape, new)}: write a gradflow.Cell around "
        "it, whose carry has the output as well"
    )
