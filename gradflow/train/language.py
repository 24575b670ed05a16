"""A model of a text: the next character from those before, trained by streams of it.

A text of n symbols, one-hot, is read by a cell with a linear readout, in B streams side by side::

    log2 1/p(x_{t+1} | x_1 ... x_t)  bits,   p = softmax(W h_t + b)

Backpropagation is truncated at windows, TBPTT(k, k); the carry goes on from one to the next, until
the text is read and begins again.
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
from gradflow.train.model import init_model, read_out
from gradflow.train.objective import step_losses
from gradflow.train.optimisers import Optimiser
from gradflow.train.truncation import Stream, Window, window_gradient
from gradflow.unroll import unroll

Codes = Int[Array, "steps streams"]


@dataclass(frozen=True)
class Language:
    """What is trained, and how; a value, hashable, and so a static argument of `jax.jit`.

    Attributes:
      cell: The cell, for one-hot inputs.
      num_symbols: How many there are.
      optimiser: How, at first at the learning rate of its spec.
      clipping: What keeps its gradients from being too large.
      window: Steps of a window, over which gradients go back.
      num_updates: The updates of the whole training, over which the learning rate falls linearly.
      final_rate: To which share of it.
    """

    cell: Cell
    num_symbols: int
    optimiser: Optimiser
    clipping: Clipping
    window: int
    num_updates: int
    final_rate: float = 0.1

    @property
    def transformation(self) -> optax.GradientTransformation:
        """From gradients to updates."""
        rate = self.optimiser.learning_rate
        falling = optax.linear_schedule(rate, self.final_rate * rate, self.num_updates)
        return optax.chain(self.clipping.transform, self.optimiser.make(falling))

    def one_hot(self, codes: Int[Array, "*n"]) -> Float[Array, "*n symbols"]:
        """The inputs that symbols are."""
        return jax.nn.one_hot(codes, self.num_symbols, dtype=jnp.result_type(float))


class State(NamedTuple):
    """What an update changes.

    Attributes:
      params: ``{"cell": ..., "readout": ...}``.
      opt_state: What the optimiser keeps.
      carry: s of every stream before the next window.
      update: How many updates have been made.
    """

    params: Params
    opt_state: Any
    carry: Carry
    update: Int[Array, ""]


def begin(language: Language, key: Key, num_streams: int) -> State:
    """The state before any update."""
    params = jax.jit(partial(init_model, language.cell, language.num_symbols))(key)
    opt_state = language.transformation.init(params)
    like = jnp.zeros((1, num_streams, language.num_symbols))
    first = stream.begin(language.cell, params, like, k1=1, k2=1)
    state = State(params, opt_state, first.carry, jnp.zeros((), jnp.int32))
    return jax.tree.map(partial(jnp.array, copy=True), state)  # each leaf its own, to be reused


def advance(
    language: Language, state: State, codes: Codes, num_updates: int
) -> tuple[State, Float[Array, " updates"]]:
    """Makes a number of updates; ``state`` is given up to what is returned.

    Several devices share the streams out.

    Args:
      language: What is trained.
      state: From `begin`, or the call before.
      codes: The text to be learnt; a window and a symbol at least. What is less than a window at
        its end is not read.
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
    steps, opt_state = language.transformation.update(
        result.gradient, state.opt_state, state.params
    )
    params = optax.apply_updates(state.params, steps)
    return State(params, opt_state, carry, state.update + 1), result.loss


def _share(
    language: Language, params: Params, streams: tuple[Carry, Batch]
) -> tuple[Window, Carry]:
    """The loss of some of the streams in a window, its gradient, and their carry after it."""
    carry, batch = streams
    before = Stream(carry, batch.inputs[:0], jnp.ones((0, batch.inputs.shape[1]), bool))
    found, k2 = (batch.inputs, batch), language.window
    after, result = window_gradient(_losses, language.cell, params, before, found, k2=k2)
    return result, after.carry


def _losses(params: Params, outputs: Array, batch: Any) -> Float[Array, " steps"]:
    return step_losses("cross_entropy", read_out(params["readout"], outputs), batch)


def num_windows(num_steps: int, window: int) -> int:
    """How many windows there are in streams of so many symbols.

    Raises:
      ValueError: If there is none.
    """
    if num_steps <= window:
        raise ValueError(
            f"streams of more than window={window} symbols are expected, got {num_steps}: take a "
            "shorter window, fewer streams or a longer text"
        )
    return (num_steps - 1) // window


@partial(jax.jit, static_argnums=0)
def bits(
    language: Language,
    params: Params,
    codes: Int[Array, "steps stretches"],
    weights: Bool[Array, "steps stretches"],
) -> Float[Array, " stretches"]:
    """The mean bits of a symbol in each stretch, the carry going on from its first to its last.

    Args:
      language: What was trained.
      params: Its parameters.
      codes: The stretches.
      weights: Which symbols are to be said; none at the first step, which nothing comes before.
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
        shares = jax.nn.log_softmax(read_out(params["readout"], outputs))
        said = jnp.take_along_axis(shares, target[..., None], axis=-1)[..., 0]
        return stream.at(carries, len(x)), -jnp.sum(jnp.where(counted, said, 0), axis=0)

    s_0 = stream.start(language.cell, params["cell"], language.one_hot(inputs[0]), None)
    _, nats = jax.lax.scan(one, s_0, (inputs, targets, counts))
    return jnp.sum(nats, axis=0) / jnp.sum(counts, axis=(0, 1)) / math.log(2)
