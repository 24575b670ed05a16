"""The recurrent layers of a trained network of any framework, as cells with parameters."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

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

The time of these inputs is that of the model's own, for layers of both directions. Where the model
passes masks to its layers, the result is `Captured`.
"""


class Captured(dict[str, np.ndarray]):
    """The inputs (N, T, input) of each layer by name.

    Attributes:
      masks: For each layer that is called with a mask: which steps (N, T) it does not skip.
    """

    def __init__(self, inputs: Mapping[str, np.ndarray], masks: Mapping[str, np.ndarray]) -> None:
        super().__init__(inputs)
        self.masks = dict(masks)


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
    def output_size(self) -> int:
        """The number of entries of an output."""
        return jax.eval_shape(lambda: self.cell.hidden(self.cell.initial_carry())).size

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


def layer_of(
    name: str, spec: str, params: Params, convention: str, is_reverse: bool = False, **facts: Any
) -> Layer:
    """Returns a layer with the sizes that its parameters have, and other fields of `Layer`."""
    gate = params if "W_x" in params else next(iter(params.values()))
    hidden_size, input_size = gate["W_x"].shape
    direction: Direction = "reverse" if is_reverse else "forward"
    return Layer(name, spec, input_size, hidden_size, params, convention, direction, **facts)


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


def to_lowest(net: Net, inputs: Float[np.ndarray, "n t input"]) -> dict[str, np.ndarray]:
    """Returns the same inputs for each layer that no other layer feeds, as `feed` takes them."""
    return {layer.name: inputs for layer in net.layers if not layer.fed_by}


def feed(net: Net, given: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns the inputs (N, T, input) of each layer, in the time of the model.

    Args:
      net: The net.
      given: Those of the layers that no other layer feeds. A layer that is fed by others gets their
        outputs side by side; one whose inputs depend on what is not given is left out.
    """
    found, outputs = dict(given), {}
    needed = {name for layer in net.layers if layer.name not in given for name in layer.fed_by}
    for layer in net.layers:
        is_fed = layer.fed_by and set(layer.fed_by) <= set(outputs)
        if is_fed and layer.name not in found:
            found[layer.name] = np.concatenate([outputs[name] for name in layer.fed_by], axis=-1)
        if layer.name in found and layer.name in needed:
            outputs[layer.name] = layer.run(found[layer.name])
    return found
