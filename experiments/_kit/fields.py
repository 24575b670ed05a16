"""Fields that configurations of several studies share, each with one help text.

A study declares ``hidden_size: int = fields.hidden_size(64)``: the default is the study's own.
"""

from functools import partial
from typing import Any

from _kit import tuning
from gradflow.study import field

positive = partial(field, positive=True)
"""Declares a number, or a tuple of numbers, that must be above zero."""


def cell(default: str | None, *, several: bool = False, without: str = "") -> Any:
    """Declares ``cell: str``, one spec, or several separated by commas.

    Args:
      without: What is taken where the default is None.
    """
    what = "Cells, separated by commas" if several else "One cell"
    by_default = f"; by default {without}" if without else ""
    return field(
        default,
        help=f"{what}: a name, name(option=value), path/to/file.py:factory or "
        f"package.module:factory{by_default}.",
    )


# What is measured.

params = partial(
    field, None, help="Files of trained parameters, separated by commas; by default new ones."
)
num_seeds = partial(positive, help="Independent repetitions, vectorised.")
hidden_size = partial(positive, help="Hidden units of a layer.")
# A run with 0 channels is autonomous.
input_size = partial(field, help="Channels of inputs that can have any number.")
num_steps = partial(positive, help="Time steps T, and so the longest lag.")
num_sequences = partial(positive, help="Input sequences for each seed.")
inputs = partial(
    field,
    help="gaussian, constant, impulse, adding, digits, text:PATH, series:PATH:COLUMN or npy:PATH, "
    "the first five with options.",
)
input_std = partial(positive, help="Standard deviation of the inputs.")
init = partial(
    field,
    None,
    help="Recurrent initialiser, such as identity or 'normal(radius=0.9)'; or torch, keras, "
    "flax_linen, flax_nnx, haiku or equinox for the initialisation of that framework.",
)
gain = partial(positive, help="Gain of the recurrent initialiser, which is orthogonal by default.")

_BLOCKS = (
    "h, carry, or fields such as c or C,n; by default h, or the fields that the next step reads "
    "where no step reads h"
)
source = partial(field, None, help=f"Block of the earlier carry: {_BLOCKS}.")
target = partial(field, None, help=f"Block of the later carry: {_BLOCKS}.")
norm = partial(field, "spectral", help="Norm of the Jacobian.")
needed_lag = partial(
    positive,
    None,
    help="Lag that the task needs, which the regime is about; by default the longest measured.",
)
lags = partial(positive, help="Lags that the figure shows.")
gains = partial(positive, help="Factors that W_h is multiplied by.")

# How it is trained.

training_precision = partial(
    field, "float32", help="Precision of the training; the flow is measured in float64."
)
batch_size = partial(positive, help="Sequences in an update.")
num_updates = partial(positive, help="Most updates of a run.")
eval_every = partial(positive, help="Updates between two evaluations.")
eval_size = partial(positive, help="Fresh sequences in an evaluation.")
optimiser = partial(field, help="An optimiser of optax, with its options as literals.")
task = partial(field, help="The task: a name, or name(option=value).")
tasks = partial(field, help="Tasks, separated by commas: a name, or name(option=value).")
learning_rate = partial(positive, help="Learning rate of Adam.")
learning_rates = partial(
    positive,
    tuning.GRID,
    help="Learning rates that are tried; the best on validation seeds is taken.",
)
num_validation = partial(positive, help="Validation seeds that choose the learning rate.")
clip = partial(positive, help="Largest global norm of a gradient.")
num_evaluations = partial(positive, help="Evaluations after the first.")
