"""Networks that forecast the next values of a series, at every step, causally."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from gradflow.cell import Cell, Key, Params
from gradflow.cells import resolve
from gradflow.cells.stack import stack
from gradflow.models.layers import Classifier
from gradflow.models.shapes import many_to_many
from gradflow.spec import parse_spec, split_specs

KERNEL, STRIDE = 4, 2
"""Width and stride of the convolution, in steps."""

Inputs = Float[Array, "steps batch 1"]
Forecasts = Float[Array, "_ batch ahead"]


class Forecaster(NamedTuple):
    """A network that forecasts the next values of a series: a value made by a plain function.

    Attributes:
      init: key -> parameters, which include the statistics of a batch norm.
      apply: (parameters, inputs) -> forecasts. Forecast s has read the first
        ``first + stride * s`` steps and no later one.
      train: The same with the statistics of this very batch. (A batch norm's mean and variance
        are over all steps: while it is trained, a little of the future is in them.)
      settle: (parameters, inputs) -> parameters with the statistics of these inputs, if any.
      cell: What is recurrent in it, all layers as one cell; None for a network without memory.
      measured: (parameters, inputs) -> that cell's parameters, and the inputs that it gets.
      ahead: Values in a forecast.
      first: Steps that the first forecast has read.
      stride: How many more the next has.
    """

    init: Callable[[Key], Params]
    apply: Callable[[Params, Inputs], Forecasts]
    train: Callable[[Params, Inputs], Forecasts]
    settle: Callable[[Params, Inputs], Params]
    cell: Cell | None
    measured: Callable[[Params, Inputs], tuple[Params, Array]] | None
    ahead: int
    first: int = 1
    stride: int = 1


def forecaster(spec: str, hidden_size: int, ahead: int) -> Forecaster:
    """Makes a recurrent network with a linear layer to the next ``ahead`` values at every step.

    Args:
      spec: A cell, as `gradflow.cells.resolve` takes it: ``lstm``, ``stack(cells='rnn,rnn')``;
        ``conv(cell='gru')`` for a convolution along time before it (of 4 steps and stride 2,
        without padding); or ``batch_norm(cells='rnn,rnn')`` for layers with a batch norm between.
      hidden_size: Units of each layer, and channels of the convolution.
      ahead: Values to forecast at a step.

    Raises:
      ValueError: If the spec names no cell, or has an option that it does not take.
    """
    name, options = parse_spec(spec)
    if name == "conv":
        cells = [resolve(_only(spec, options, "cell"))(hidden_size, hidden_size)]
    else:
        named = split_specs(_only(spec, options, "cells")) if name == "batch_norm" else [spec]
        sizes = [1, *(hidden_size for _ in named)]
        cells = [resolve(one)(size, hidden_size) for one, size in zip(named, sizes, strict=False)]
    net = _Net(tuple(cells), hidden_size if name == "conv" else 0, hidden_size, ahead)
    first, stride = (KERNEL, STRIDE) if name == "conv" else (1, 1)
    return Forecaster(
        init=net.init,
        apply=net.apply,
        train=partial(net.apply, train=True),
        settle=net.settle if name == "batch_norm" else lambda params, inputs: params,
        cell=cells[0] if len(cells) == 1 else stack(cells),
        measured=net.measured,
        ahead=ahead,
        first=first,
        stride=stride,
    )


def read_out(
    params: Params, outputs: Float[Array, "*steps_and_batch hidden"]
) -> Float[Array, "*steps_and_batch ahead"]:
    """Computes the forecasts h W + b of a network of `forecaster` from the outputs of its cell."""
    return outputs @ params["head"]["kernel"] + params["head"]["bias"]


def dense(num_steps: int, hidden_size: int, ahead: int) -> Forecaster:
    """Makes a network with one hidden layer on whole windows: W_2 relu(W_1 x + b_1) + b_2.

    It makes one forecast, because all ``num_steps`` are read at once. Biases are initially zero.
    """
    glorot = jax.nn.initializers.glorot_uniform(in_axis=1, out_axis=0)

    def init(key: Key) -> Params:
        k_1, k_2 = jax.random.split(key)
        dtype = jnp.zeros(()).dtype
        return {
            "W_1": glorot(k_1, (hidden_size, num_steps), dtype),
            "b_1": jnp.zeros(hidden_size),
            "W_2": glorot(k_2, (ahead, hidden_size), dtype),
            "b_2": jnp.zeros(ahead),
        }

    def apply(params: Params, inputs: Inputs) -> Forecasts:
        h = jax.nn.relu(inputs[..., 0].T @ params["W_1"].T + params["b_1"])
        return (h @ params["W_2"].T + params["b_2"])[None]

    return Forecaster(
        init, apply, apply, lambda params, inputs: params, None, None, ahead, num_steps
    )


def _only(spec: str, options: dict[str, Any], option: str) -> str:
    if set(options) != {option} or not isinstance(options[option], str):
        raise ValueError(
            f"Expected one option, {option}='...', got {spec!r}. Use for example {option}='gru'."
        )
    return options[option]


class _Conv(nnx.Module):
    """A convolution along time of time-major arrays."""

    def __init__(self, features: int, rngs: nnx.Rngs) -> None:
        dtype = jnp.zeros(()).dtype
        size = {"kernel_size": KERNEL, "strides": STRIDE, "padding": "VALID"}
        self.conv = nnx.Conv(1, features, **size, param_dtype=dtype, rngs=rngs)

    def __call__(self, inputs: Array) -> Array:
        return jnp.swapaxes(self.conv(jnp.swapaxes(inputs, 0, 1)), 0, 1)


class _Net(NamedTuple):
    """The layers, as functions of a plain dictionary of parameters; hashable as it is."""

    cells: tuple[Cell, ...]
    channels: int
    hidden_size: int
    ahead: int

    def build(self, key: Key) -> Classifier:
        rngs = nnx.Rngs(params=key)
        front = _Conv(self.channels, rngs) if self.channels else lambda inputs: inputs
        models = [many_to_many(cell) for cell in self.cells]
        model = Classifier(
            front, models, features=self.channels or 1, num_classes=self.ahead, rngs=rngs
        )
        for norm in model.norms:
            norm.momentum = 0.0  # the statistics are those of the inputs last seen
        return model

    def init(self, key: Key) -> Params:
        return nnx.to_pure_dict(nnx.state(self.build(key)))

    def bound(self, params: Params) -> Classifier:
        model = nnx.eval_shape(lambda: self.build(jax.random.key(0)))
        graph, state = nnx.split(model)
        nnx.replace_by_pure_dict(state, params)
        return nnx.merge(graph, state)

    def apply(self, params: Params, inputs: Inputs, *, train: bool = False) -> Forecasts:
        model = self.bound(params)
        model.train() if train else model.eval()
        return model(inputs)

    def settle(self, params: Params, inputs: Inputs) -> Params:
        model = self.bound(params)
        model.train()
        model(inputs)
        return nnx.to_pure_dict(nnx.state(model))

    def measured(self, params: Params, inputs: Inputs) -> tuple[Params, Array]:
        """The layers as one cell: a batch norm between two is merged into the next weights."""
        model = self.bound(params)
        key = jax.eval_shape(jax.random.key, 0)
        layers = [layer["params"] for _, layer in sorted(params["layers"].items())]
        own = [  # as the cell has them: NNX turns tuples into dictionaries
            jax.tree.unflatten(
                jax.tree.structure(jax.eval_shape(cell.init, key)), jax.tree.leaves(layer)
            )
            for cell, layer in zip(self.cells, layers, strict=True)
        ]
        for norm, layer in zip(model.norms, range(1, len(own)), strict=True):
            gain = params["norms"][layer - 1]["scale"] / jnp.sqrt(norm.var[...] + norm.epsilon)
            shift = params["norms"][layer - 1]["bias"] - norm.mean[...] * gain
            own[layer] = _absorbed(own[layer], gain, shift)
        return own[0] if len(own) == 1 else tuple(own), model.front(inputs)


def _absorbed(params: Params, scale: Array, shift: Array) -> Params:
    """Converts the parameters of a cell that reads scale ∘ x + shift to one that reads x.

    W_x (scale ∘ x + shift) + b = (W_x diag(scale)) x + (b + W_x shift), gate by gate.
    """
    if "W_x" in params:
        moved = {"W_x": params["W_x"] * scale, "b": params["b"] + params["W_x"] @ shift}
        return {**params, **moved}
    return {name: _absorbed(gate, scale, shift) for name, gate in params.items()}
