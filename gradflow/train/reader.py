"""A training of a model of a text from beginning to end: updates, bits, probes and checkpoints.

`gradflow.train.language` has the updates, each of one window, with the carry going on from one to
the next; here there are as many as a schedule says, and what is held out is read now and then.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from gradflow.cell import Params
from gradflow.train.fit import Schedule
from gradflow.train.keeper import Keeper
from gradflow.train.language import Codes, Language, State, advance, bits
from gradflow.train.prober import Watch


class Text(NamedTuple):
    """What is learnt and what is held out, as the numbers of symbols.

    Attributes:
      streams: What is learnt, cut into pieces that are read side by side.
      held_out: Stretches of the rest, read side by side too.
      weights: Which symbols of a stretch are to be said; none at its first step.
    """

    streams: Codes
    held_out: Int[Array, "steps stretches"]
    weights: Bool[Array, "steps stretches"]


class Progress(NamedTuple):
    """How far a training is.

    Attributes:
      state: After the next evaluation it is gone, for its memory is reused.
      update: How many updates have been made.
      bits: Of a symbol of each stretch that is held out, by evaluation; NaN where not reached.
      learnt: Mean bits over the windows since the evaluation before; NaN at the first.
      probes: By name, (probings, ...), NaN where not reached.
    """

    state: State
    update: int
    bits: Float[np.ndarray, "evaluations stretches"]
    learnt: Float[np.ndarray, " evaluations"]
    probes: dict[str, np.ndarray]


def fit_language(
    language: Language,
    state: State,
    text: Text,
    schedule: Schedule,
    *,
    measure: Callable[[Params], Mapping[str, np.ndarray]] | None = None,
    keeper: Keeper | None = None,
) -> Iterator[Progress]:
    """Trains to the end of a schedule and yields after every evaluation.

    With a keeper the training goes on from its last checkpoint, with the numbers that it would
    have had: the first yielded is where it goes on.

    Args:
      language: What is trained.
      state: As `gradflow.train.language.begin` makes it; given up to the training.
      text: What it reads.
      schedule: How long, and how often one looks; it does not stop early.
      measure: parameters -> arrays by name: what is probed along the way, if anything.
      keeper: Where the training is kept, if anywhere.

    Raises:
      ValueError: If a stream has no window, or the keeper has another training.
    """
    look = partial(_look, language, text, schedule, measure)
    progress = look(_empty(state, text, schedule), np.nan)
    stored = None if keeper is None else keeper.restore(_to_arrays(progress))
    if stored is None:
        _keep(progress, schedule, keeper)
    else:
        state = jax.tree.map(jnp.array, stored.state)
        progress = stored._replace(state=state, update=int(stored.update))
    yield progress
    while progress.update < schedule.num_updates:
        every = schedule.eval_every
        state, losses = advance(language, progress.state, text.streams, every)
        learnt = float(jnp.mean(losses)) / np.log(2)
        progress = look(progress._replace(state=state, update=progress.update + every), learnt)
        _keep(progress, schedule, keeper)
        yield progress


def _empty(state: State, text: Text, schedule: Schedule) -> Progress:
    """The progress before anything is known, with room for the bits that there will be."""
    times, stretches = len(schedule.evaluations), text.held_out.shape[1]
    return Progress(state, 0, np.full((times, stretches), np.nan), np.full(times, np.nan), {})


def _look(
    language: Language,
    text: Text,
    schedule: Schedule,
    measure: Callable[[Params], Mapping[str, np.ndarray]] | None,
    progress: Progress,
    learnt: float,
) -> Progress:
    """Reads what is held out, probes, and enters both in the log."""
    index, params = progress.update // schedule.eval_every, progress.state.params
    found, so_far, probes = progress.bits.copy(), progress.learnt.copy(), progress.probes
    found[index] = bits(language, params, text.held_out, text.weights)
    so_far[index] = learnt
    if measure is not None:
        every = (schedule.probe_every or schedule.eval_every) // schedule.eval_every
        num = schedule.num_updates // schedule.eval_every
        probes = Watch(measure, every).entered(probes, params, index, num)
    return progress._replace(bits=found, learnt=so_far, probes=probes)


def _keep(progress: Progress, schedule: Schedule, keeper: Keeper | None) -> None:
    if keeper is not None:
        index = progress.update // schedule.eval_every
        row = {"bits": np.nanmean(progress.bits[index]), "train_bits": progress.learnt[index]}
        keeper.keep(progress.update, _to_arrays(progress), row, {})


def _to_arrays(progress: Progress) -> Progress:
    return jax.device_get(progress._replace(update=np.int64(progress.update)))  # pyright: ignore[reportArgumentType]
