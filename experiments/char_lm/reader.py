"""The source of a training of a language model: updates on streams, bits on the held-out text."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

from char_lm.language import Codes, Language, State, advance, bits
from gradflow.cell import Params
from gradflow.train import Source
from gradflow.train.driver import Row


class Text(NamedTuple):
    """The training text and the held-out text, as token ids.

    Attributes:
      streams: The training text, cut into pieces that are read side by side.
      held_out: Stretches of the rest, read side by side too.
      weights: Which symbols of a stretch are predicted; none at its first step.
    """

    streams: Codes
    held_out: Int[Array, "steps stretches"]
    weights: Bool[Array, "steps stretches"]


def streams(
    language: Language,
    state: State,
    text: Text,
    *,
    measure: Callable[[Params], Mapping[str, np.ndarray]] | None = None,
) -> Source:
    """Makes the source that trains a language model on streams of a text.

    Its metrics are ``stretch_bits``, the bits per symbol of each held-out stretch, ``bits``, their
    mean, and ``train_bits``, the mean over the windows since the evaluation before.

    Args:
      language: What is trained.
      state: From `char_lm.language.initial_state`; given up to the training.
      text: What it reads.
      measure: parameters -> arrays by name: what is probed during the training, if anything.
    """

    def updates(state: State, number: int) -> tuple[State, dict[str, float]]:
        state, losses = advance(language, state, text.streams, number)
        return state, {"train_bits": float(jnp.mean(losses)) / np.log(2)}

    def evaluate(state: State) -> tuple[State, Row]:
        found = np.asarray(bits(language, state.params, text.held_out, text.weights), float)
        return state, {"bits": np.nanmean(found), "stretch_bits": found}

    return Source(
        state,
        updates,
        evaluate,
        averages={"train_bits": ()},
        probe=None if measure is None else lambda state: measure(state.params),
    )
