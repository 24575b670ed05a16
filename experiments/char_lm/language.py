"""A language model of characters, trained on parallel streams of a text.

A cell with a linear readout reads a text of n symbols, one-hot, in B streams side by side::

    log2 1/p(x_{t+1} | x_1 ... x_t)  bits,   p = softmax(W h_t + b)

Backpropagation is truncated at windows, TBPTT(k, k). The carry is passed from one window to the
next, until the text ends and is read again from s_0.
"""

import math
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int

from gradflow.cell import Carry, Cell, Key, Params
from gradflow.devices import sum_over_batch, to_first_device
from gradflow.tasks.task import Batch
from gradflow.train import stream
from gradflow.train.clipping import Clipping
from gradflow.train.descent import Descent, step
from gradflow.train.model import init_model, read_out
from gradflow.train.objective import step_losses
from gradflow.train.optimisers import Optimiser
from gradflow.train.truncation import Stream, WindowGradient, window_gradient
from gradflow.unroll import unroll

Codes = Int[Array, "steps streams"]


@dataclass(frozen=True)
class Language:
    """What is trained, and how; a value, hashable, and so a static argument of `jax.jit`.

    Attributes:
      cell: The cell, for one-hot inputs.
      num_symbols: How many there are.
      optimiser: The optimiser; the initial learning rate is that of the state.
      clipping: The clipping of the gradient.
      window: Steps of a window, through which gradients are backpropagated.
      num_updates: The updates of the whole training, over which the learning rate falls linearly.
      final_rate: The final learning rate as a fraction of the initial one.
    """

    cell: Cell
    num_symbols: int
    optimiser: Optimiser
    clipping: Clipping
    window: int
    num_updates: int
    final_rate: float = 0.1

    def transformation(self, rate: Any) -> optax.GradientTransformation:
        """From gradients to updates, given the initial learning rate, which may be traced."""
        falling = optax.linear_schedule(rate, self.final_rate * rate, self.num_updates)
        return optax.chain(self.clipping.transform, self.optimiser.make(falling))

    def one_hot(self, codes: Int[Array, "*n"]) -> Float[Array, "*n symbols"]:
        """Encodes symbols as inputs."""
        return jax.nn.one_hot(codes, self.num_symbols, dtype=jnp.result_type(float))


class State(NamedTuple):
    """What an update changes.

    Attributes:
      descent: The parameters ``{"cell": ..., "readout": ...}`` and the state of the optimiser.
      carry: s of every stream before the next window.
      update: How many updates have been made.
      rate: The initial learning rate: one program trains at all of them.
    """

    descent: Descent
    carry: Carry
    update: Int[Array, ""]
    rate: Float[Array, ""]

    @property
    def params(self) -> Params:
        """The parameters."""
        return self.descent.params


def initial_state(language: Language, key: Key, num_streams: int, rate: float) -> State:
    """Initialises the parameters; returns the state before any update.

    Args:
      language: What is trained.
      key: The key of the parameters.
      num_streams: Streams that are read side by side.
      rate: The initial learning rate.
    """
    params = jax.jit(partial(init_model, language.cell, language.num_symbols))(key)
    like = jnp.zeros((1, num_streams, language.num_symbols))
    carry = stream.begin_stream(language.cell, params, like, k1=1, k2=1).carry
    descent = Descent.start(language.transformation(rate), params)
    state = State(descent, carry, jnp.zeros((), jnp.int32), jnp.asarray(rate, float))
    # Copies: a leaf that stood twice in the state could not be donated to an update.
    return jax.tree.map(partial(jnp.array, copy=True), state)


def advance(
    language: Language, state: State, codes: Codes, num_updates: int
) -> tuple[State, Float[Array, " updates"]]:
    """Makes a number of updates, with the streams distributed over devices.

    Args:
      language: What is trained.
      state: From `initial_state` or the call before; its memory is reused.
      codes: The training text; a window and a symbol at least. An incomplete window at its end is
        not read.
      num_updates: How many.

    Returns:
      The state, and the mean loss of each update's window, in nats a symbol.
    """
    return to_first_device(_advance(language, state, codes, num_updates))


@partial(jax.jit, static_argnums=(0, 3), donate_argnums=1)
def _advance(
    language: Language, state: State, codes: Codes, num_updates: int
) -> tuple[State, Float[Array, " updates"]]:
    return jax.lax.scan(lambda s, _: _update(language, s, codes), state, length=num_updates)


def _update(language: Language, state: State, codes: Codes) -> tuple[State, Float[Array, ""]]:
    window = language.window
    place = state.update % num_windows(len(codes), window)
    cut = jax.lax.dynamic_slice_in_dim(codes, place * window, window + 1)
    s_0 = stream.start(language.cell, state.params["cell"], language.one_hot(cut[:1]), None)
    carry = jax.tree.map(lambda a, b: jnp.where(place == 0, a, b), s_0, state.carry)
    inputs = language.one_hot(cut[:-1])
    weights = jnp.full(cut[1:].shape, 1 / cut[1:].size)
    found = carry, Batch(inputs, cut[1:], weights)
    share = partial(_share, language)
    result, carry = sum_over_batch(share, state.params, found, axes=(0, 1))
    descent = step(language.transformation(state.rate), state.descent, result.gradient)
    return State(descent, carry, state.update + 1, state.rate), result.loss


def _share(
    language: Language, params: Params, streams: tuple[Carry, Batch]
) -> tuple[WindowGradient, Carry]:
    """Computes the loss of some streams in a window, its gradient, and the carry after it."""
    carry, batch = streams
    before = Stream(carry, batch.inputs[:0], jnp.ones((0, batch.inputs.shape[1]), bool))
    found, k2 = (batch.inputs, batch), language.window
    after, result = window_gradient(_losses, language.cell, params, before, found, k2=k2)
    return result, after.carry


def _losses(params: Params, outputs: Array, batch: Any) -> Float[Array, " steps"]:
    return step_losses("cross_entropy", read_out(params["readout"], outputs), batch)


def num_windows(num_steps: int, window: int) -> int:
    """Returns the number of windows in streams of so many symbols.

    Raises:
      ValueError: If there is no window.
    """
    if num_steps <= window:
        raise ValueError(
            f"Expected streams of more than window={window} symbols, got {num_steps}. Use a "
            "shorter window, fewer streams or a longer text."
        )
    return (num_steps - 1) // window


@partial(jax.jit, static_argnums=0)
def bits(
    language: Language,
    params: Params,
    codes: Int[Array, "steps stretches"],
    weights: Bool[Array, "steps stretches"],
) -> Float[Array, " stretches"]:
    """Computes the mean bits per symbol of each stretch, read from s_0 without a reset.

    Args:
      language: What was trained.
      params: Its parameters.
      codes: The stretches.
      weights: Which symbols are predicted; none at the first step, which nothing precedes.
    """
    inputs, targets, counts = codes[:-1], codes[1:], weights[1:]
    missing = -len(inputs) % language.window
    inputs, targets, counts = (
        jnp.pad(part, ((0, missing), (0, 0))).reshape(-1, language.window, part.shape[1])
        for part in (inputs, targets, counts)
    )

    def one(carry: Carry, window: tuple[Array, ...]) -> tuple[Carry, Array]:
        x, target, counted = window
        carries, outputs = unroll(language.cell, params["cell"], language.one_hot(x), carry=carry)
        log_shares = jax.nn.log_softmax(read_out(params["readout"], outputs))
        found = jnp.take_along_axis(log_shares, target[..., None], axis=-1)[..., 0]
        return stream.at(carries, len(x)), -jnp.sum(jnp.where(counted, found, 0), axis=0)

    s_0 = stream.start(language.cell, params["cell"], language.one_hot(inputs[0]), None)
    _, nats = jax.lax.scan(one, s_0, (inputs, targets, counts))
    return jnp.sum(nats, axis=0) / jnp.sum(counts, axis=(0, 1)) / math.log(2)
