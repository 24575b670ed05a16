"""The recurrent layers of a trained network of any framework, as cells with parameters."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from gradflow.cell import Carry, Cell, Params
from gradflow.cells import resolve
from gradflow.spec import check_name
from gradflow.unroll import unroll

Direction = Literal["forward", "reverse"]

Capture = Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]]
"""Runs the original model on a batch, and returns the inputs (N, T, input) of each layer by name.

The time of these inputs is that of the model's own, for layers of both directions.
"""

TOLERANCE = 1e-4
"""Largest difference from the original's outputs that rounding in float32 can cause."""


@dataclass(frozen=True, eq=False)
class Layer:
    """A recurrent layer of a model, in one direction.

    Attributes:
      name: Its name in the model, such as ``encoder.l0_reverse``.
      spec: Its cell, as `gradflow.cells.resolve` takes it.
      input_size: Size of its inputs.
      hidden_size: Size of its hidden state; of its cell state, if the hidden state is projected.
      params: The cell's parameters, NumPy arrays in float64.
      convention: The layout of the original from which they were converted, in words.
      direction: Whether it reads the model's time forwards or in reverse.
      fed_by: The layers whose outputs side by side, in this order, are its inputs; none where its
        inputs come from elsewhere, such as the model's inputs or an embedding.
      carry: s_0, if the model has one that is not the cell's own.
      error: Largest absolute difference between the outputs of the original and of the cell, on
        the same random inputs; None where they were not compared.
      note: What a user has to know, such as why they were not compared.
    """

    name: str
    spec: str
    input_size: int
    hidden_size: int
    params: Params
    convention: str
    direction: Direction = "forward"
    fed_by: tuple[str, ...] = ()
    carry: Carry | None = None
    error: float | None = None
    note: str = ""

    @property
    def cell(self) -> Cell:
        """The cell that this layer runs."""
        return _cell(self.spec, self.input_size, self.hidden_size)

    @property
    def verification(self) -> str:
        """Whether the import was compared with the original, in words."""
        return "not verified" if self.error is None else f"verified to {self.error:.0e}"

    def apply(self, inputs: Float[Array, "n t input"]) -> Float[Array, "n t output"]:
        """Computes the outputs, for inputs and outputs in the time of the model."""
        turn = slice(None, None, -1 if self.direction == "reverse" else 1)
        x = jnp.swapaxes(inputs, 0, 1)[turn]
        carry = self.carry
        if carry is not None:
            carry = jax.tree.map(lambda s: jnp.broadcast_to(s, (x.shape[1], *np.shape(s))), carry)
        run = _program(self.spec, self.input_size, self.hidden_size)
        return jnp.swapaxes(run(self.params, x, carry)[turn], 0, 1)

    def run(self, inputs: Float[np.ndarray, "n t input"]) -> Float[np.ndarray, "n t output"]:
        """Computes the same in float64, whatever the precision that JAX is set to."""
        with jax.enable_x64(True):
            return np.asarray(self.apply(jnp.asarray(inputs, jnp.float64)))

    def __repr__(self) -> str:
        sizes = f"{self.input_size} -> {self.hidden_size}"
        facts = [self.spec, sizes, self.direction, self.verification, self.note]
        return f"{self.name}: {', '.join(filter(None, facts))}"


@functools.lru_cache(maxsize=64)
def _cell(spec: str, input_size: int, hidden_size: int) -> Cell:
    """Makes a cell once, so that what is compiled for it is used again."""
    return resolve(spec, allow_code=False)(input_size, hidden_size)


@functools.lru_cache(maxsize=64)
def _program(spec: str, input_size: int, hidden_size: int) -> Callable[..., jax.Array]:
    """Makes the compiled function that runs a cell on inputs (T, N, input)."""
    cell = _cell(spec, input_size, hidden_size)
    return jax.jit(lambda params, x, carry: unroll(cell, params, x, carry=carry).outputs)


@dataclass(frozen=True, eq=False)
class Net:
    """The recurrent layers of a model; made by `gradflow.load`.

    Attributes:
      framework: Where the model comes from, such as ``PyTorch``.
      layers: The layers in the order of computation, the two directions of a layer one by one.
      unsupported: Why a recurrent layer was not imported, by its name.
      capture: Gets the inputs of the layers from the whole model; None where the file holds
        parameters alone.
      path: The file or folder that was read, if it was one.
      note: What a user has to know of the whole, such as why there is no capture.
    """

    framework: str
    layers: tuple[Layer, ...]
    unsupported: Mapping[str, str] = field(default_factory=dict)
    capture: Capture | None = None
    path: str | None = None
    note: str = ""

    def __getitem__(self, name: str) -> Layer:
        """Returns the layer of this name.

        Raises:
          ValueError: If there is none.
        """
        names = [layer.name for layer in self.layers]
        check_name("layer", name, names)
        return self.layers[names.index(name)]

    def __repr__(self) -> str:
        place = "" if self.path is None else f" ({self.path})"
        lines = [f"Net from {self.framework}{place}, {len(self.layers)} recurrent layers"]
        lines += [f"  {self.note}"] * bool(self.note)
        lines += [f"  {layer!r}" for layer in self.layers]
        return "\n".join(
            lines + [f"  {n}: not imported: {why}" for n, why in self.unsupported.items()]
        )


def compared(layer: Layer, original: Callable[[np.ndarray], np.ndarray]) -> Layer:
    """Returns the layer with the largest difference of its outputs from the original's.

    Args:
      layer: The layer.
      original: Runs the original on inputs (N, T, input), in the time of the model, and returns
        its outputs (N, T, hidden). It may compute in any precision.

    Raises:
      ValueError: If the outputs differ by more than rounding: the import is wrong.
    """
    inputs = np.random.default_rng(0).normal(size=(2, 7, layer.input_size))
    expected = np.asarray(original(inputs), np.float64)
    found = layer.run(inputs)
    if found.shape != expected.shape:
        raise ValueError(
            f"Expected outputs of shape {found.shape} from the original of {layer.name}, got "
            f"{expected.shape}. Report this model: its layout is not understood."
        )
    error = largest_difference(found, expected)
    if not error <= TOLERANCE * max(1.0, float(np.nanmax(np.abs(expected), initial=0.0))):
        raise ValueError(
            f"Expected the outputs of the original of {layer.name}, but those of the imported cell "
            f"{layer.spec} differ by up to {error:.3g}. The original follows another convention: "
            "name it with convention, or report this model."
        )
    return replace(layer, error=error)


def largest_difference(found: np.ndarray, expected: np.ndarray) -> float:
    """Returns the largest absolute difference; equal infinities and two NaN do not differ."""
    same = (found == expected) | (np.isnan(found) & np.isnan(expected))
    with np.errstate(invalid="ignore"):
        difference = np.where(same, 0.0, np.abs(found - expected))
    return float(np.max(difference, initial=0.0))


def check_net(net: Net) -> Net:
    """Returns the net, after a check that every layer has the parameters of its cell.

    Raises:
      ValueError: If names or shapes of a layer's parameters are not those of its cell, or no
        recurrent layer was found.
    """
    for layer in net.layers:
        shapes = jax.tree.map(np.shape, layer.params)
        expected = jax.tree.map(jnp.shape, jax.eval_shape(layer.cell.init, jax.random.key(0)))
        if shapes != expected:
            raise ValueError(
                f"Expected parameters of the shapes {expected} for layer {layer.name}, a "
                f"{layer.spec}, got {shapes}. The convention of the file is another one."
            )
    return net
