"""The cell protocol: one time step of a recurrent network, as pure functions of one example.

Notation, used everywhere in gradflow::

    s_0 = initial_carry()              the carry before the first step
    s_t = step(params, s_{t-1}, x_t)   t = 1 ... T
    h_t = hidden(s_t)                  the part of the carry that is called the hidden state
    J_t = ∂s_t/∂s_{t-1}                the step Jacobian, on the whole carry
    P(t, k) = J_t J_{t-1} ... J_{k+1}  = ∂s_t/∂s_k; row = later, column = earlier; lag = t - k

Arrays are time-major: ``inputs[t-1]`` is x_t, ``carries[t]`` is s_t for t = 0 ... T. A cell
is unbatched; batches come by `jax.vmap` at the edge.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol, TypeAlias, runtime_checkable

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

Key: TypeAlias = jax.Array
"""A typed random key, as made by `jax.random.key`."""

Params: TypeAlias = Any
"""A pytree of floating arrays, per gate: ``params["f"]["W_h"]``."""

Carry: TypeAlias = Any
"""A pytree of floating arrays: a vector, or a NamedTuple of vectors with named fields."""


@runtime_checkable
class InitFn(Protocol):
    """Initialises the parameters of a cell from a random key."""

    def __call__(self, key: Key, /) -> Params: ...


@runtime_checkable
class StepFn(Protocol):
    """Advances one example by one time step.

    Returns the pair (s_t, h_t) for the carry s_{t-1} and the input x_t of shape (input,).
    """

    def __call__(self, params: Params, carry: Carry, x: Array, /) -> tuple[Carry, Array]: ...


@runtime_checkable
class GatesFn(Protocol):
    """Computes the activations of the gates at one step, by name, each of shape (hidden,)."""

    def __call__(self, params: Params, carry: Carry, x: Array, /) -> Mapping[str, Array]: ...


@runtime_checkable
class NoiseFn(Protocol):
    """Adds the noise of training, such as dropout masks, to parameters and inputs.

    From a key, the parameters and the inputs (T, B, input) of a batch it returns parameters and
    inputs that contain new noise. With None for the key the noise is switched off, as in an
    evaluation.
    """

    def __call__(
        self, key: Key | None, params: Params, inputs: Array, /
    ) -> tuple[Params, Array]: ...


def whole_carry(carry: Carry) -> Float[Array, " carry"]:
    """Returns the carry as one vector: its leaves, flattened and concatenated."""
    return ravel_pytree(carry)[0]


class Cell(NamedTuple):
    """A recurrent cell: a value made by a plain factory, with nothing to inherit.

    Being a tuple of functions it is hashable, and so can be a static argument of `jax.jit`.
    `gradflow.testing.check_cell` states and checks the contract.

    Attributes:
      init: Initialises the parameters from a key.
      step: (params, carry, x) -> (carry, h), one time step of one example. The argument order
        is Flax's, so that the ``apply`` of any Linen cell is already a step.
      initial_carry: Returns s_0, usually zeros.
      hidden: Computes h from the carry, by default all of its entries as a vector. h may be any
        differentiable function of the carry, of any shape. Where it is a selection of entries,
        measurements can differentiate by it (``source="h"``).
      gates: Computes the gates' activations by name, for cells with gates.
      noise: Samples the noise of training, such as a dropout mask, for cells with noise.
    """

    init: InitFn
    step: StepFn
    initial_carry: Callable[[], Carry]
    hidden: Callable[[Carry], Float[Array, " hidden"]] = whole_carry
    gates: GatesFn | None = None
    noise: NoiseFn | None = None

    def __repr__(self) -> str:
        """Writes the factory of the cell, its sizes, the blocks of its carry and its gates."""
        name = getattr(self.step, "__qualname__", type(self.step).__name__).partition(".")[0]
        name = name.removeprefix("_").removesuffix("_cell")  # what two factories share
        try:
            return f"{name}{_description(self)}"
        except Exception:  # of a function that is still being written; a repr must not fail
            return f"{name}(...)"


def _description(cell: Cell) -> str:
    """The sizes of a cell, its carry and its gates: ``(input_size=3, hidden_size=4): carry h (4)``.

    The input size is the number of columns of the matrices W_x, where they have only one.
    """
    params, carry = param_shapes(cell), jax.eval_shape(cell.initial_carry)
    shapes = _named_shapes(params).items()
    widths = {s[-1] for name, s in shapes if name.split(".")[-1] == "W_x" and len(s) == 2}
    hidden = jax.eval_shape(cell.hidden, carry).shape
    sizes = [f"input_size={width}" for width in widths if len(widths) == 1]
    sizes += [f"hidden_size={hidden[0]}"] if len(hidden) == 1 else []
    blocks = [
        f"{name} ({', '.join(map(str, shape))})".strip()
        for name, shape in _named_shapes(carry).items()
    ]
    text = f"({', '.join(sizes)}): carry {', '.join(blocks)}"
    if cell.gates is None or len(widths) != 1:
        return text
    x = jax.ShapeDtypeStruct((*widths,), jax.tree.leaves(carry)[0].dtype)
    return f"{text}; gates {' '.join(jax.eval_shape(cell.gates, params, carry, x))}"


def _named_shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    return {
        jax.tree_util.keystr(path, simple=True, separator="."): leaf.shape
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def split_key(key: Key, number: int = 2) -> Key:
    """Splits the key that a cell is initialised from.

    Raises:
      TypeError: If it is not a random key, but for instance a seed.
    """
    dtype = getattr(key, "dtype", None)
    if dtype is None or not (jnp.issubdtype(dtype, jax.dtypes.prng_key) or dtype == jnp.uint32):
        got = repr(key) if isinstance(key, int | float) else type(key).__name__
        raise TypeError(
            f"Expected a random key, got {got}. Make one from a seed: cell.init(jax.random.key(0))."
        )
    return jax.random.split(key, number)


def param_shapes(cell: Cell) -> Params:
    """Returns the parameters of a cell as shapes and dtypes, without computing them."""
    return jax.eval_shape(cell.init, jax.eval_shape(jax.random.key, 0))
