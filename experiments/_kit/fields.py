"""Fields that configurations of several studies share, each with one help text.

A study declares ``hidden_size: int = fields.hidden_size(64)``: the default is the study's own.
"""

from typing import Any

from _kit import tuning
from gradflow.study import field

_BLOCKS = (
    "h, carry, or fields such as c or C,n; by default h, or the fields that the next step reads "
    "where no step reads h"
)


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


def params() -> Any:
    """Declares ``params: tuple[str, ...] | None``."""
    return field(
        None, help="Files of trained parameters, separated by commas; by default new ones."
    )


def num_seeds(default: int) -> Any:
    """Declares ``num_seeds: int`` of a study whose default is not that of all."""
    return field(default, help="Independent repetitions, vectorised.", positive=True)


def hidden_size(default: int) -> Any:
    """Declares ``hidden_size: int``."""
    return field(default, help="Hidden units of a layer.", positive=True)


def input_size(default: int) -> Any:
    """Declares ``input_size: int``; 0 is an autonomous run."""
    return field(default, help="Channels of inputs that can have any number.")


def num_steps(default: int) -> Any:
    """Declares ``num_steps: int``."""
    return field(default, help="Time steps T, and so the longest lag.", positive=True)


def num_sequences(default: int = 1) -> Any:
    """Declares ``num_sequences: int``."""
    return field(default, help="Input sequences for each seed.", positive=True)


def inputs(default: str = "gaussian") -> Any:
    """Declares ``inputs: str``, a spec of `gradflow.tasks.inputs`."""
    return field(
        default,
        help="gaussian, constant, impulse, adding, digits, text:PATH, series:PATH:COLUMN or "
        "npy:PATH, the first five with options.",
    )


def input_std(default: float) -> Any:
    """Declares ``input_std: float``."""
    return field(default, help="Standard deviation of the inputs.", positive=True)


def init() -> Any:
    """Declares ``init: str | None``."""
    return field(
        None,
        help="Recurrent initialiser, such as identity or 'normal(radius=0.9)'; or torch, keras, "
        "flax_linen, flax_nnx, haiku or equinox for the initialisation of that framework.",
    )


def gain(default: float | None) -> Any:
    """Declares ``gain: float``, or ``float | None``."""
    return field(
        default,
        help="Gain of the recurrent initialiser, which is orthogonal by default.",
        positive=True,
    )


def source() -> Any:
    """Declares ``source: str | None``, which `subjects.blocks` reads."""
    return field(None, help=f"Block of the earlier carry: {_BLOCKS}.")


def target() -> Any:
    """Declares ``target: str | None``, which `subjects.blocks` reads."""
    return field(None, help=f"Block of the later carry: {_BLOCKS}.")


def norm() -> Any:
    """Declares ``norm: Literal["spectral", "frobenius"]``."""
    return field("spectral", help="Norm of the Jacobian.")


def needed_lag() -> Any:
    """Declares ``needed_lag: int | None``."""
    return field(
        None,
        help="Lag that the task needs, which the regime is about; by default the longest measured.",
        positive=True,
    )


def lags(default: tuple[int, ...]) -> Any:
    """Declares ``lags: tuple[int, ...]``, the lags that a figure shows."""
    return field(default, help="Lags that the figure shows.", positive=True)


def gains(default: tuple[float, ...]) -> Any:
    """Declares ``gains: tuple[float, ...]``."""
    return field(default, help="Factors that W_h is multiplied by.", positive=True)


def training_precision() -> Any:
    """Declares ``precision: Literal["float64", "float32"]`` of a study that trains."""
    return field("float32", help="Precision of the training; the flow is measured in float64.")


def batch_size(default: int = 32) -> Any:
    """Declares ``batch_size: int``."""
    return field(default, help="Sequences in an update.", positive=True)


def num_updates(default: int) -> Any:
    """Declares ``num_updates: int``."""
    return field(default, help="Most updates of a run.", positive=True)


def eval_every(default: int) -> Any:
    """Declares ``eval_every: int``."""
    return field(default, help="Updates between two evaluations.", positive=True)


def eval_size(default: int) -> Any:
    """Declares ``eval_size: int``."""
    return field(default, help="Fresh sequences in an evaluation.", positive=True)


def optimiser(default: str = "adam") -> Any:
    """Declares ``optimiser: str``."""
    return field(default, help="An optimiser of optax, with its options as literals.")


def task(default: str) -> Any:
    """Declares ``task: str``."""
    return field(default, help="The task: a name, or name(option=value).")


def tasks(default: str) -> Any:
    """Declares ``tasks: str``."""
    return field(default, help="Tasks, separated by commas: a name, or name(option=value).")


def learning_rates() -> Any:
    """Declares ``learning_rates: tuple[float, ...]``, from which each competitor gets its own."""
    return field(
        tuning.GRID,
        help="Learning rates that are tried; the best on validation seeds is taken.",
        positive=True,
    )


def num_validation(default: int = 2) -> Any:
    """Declares ``num_validation: int``."""
    return field(default, help="Validation seeds that choose the learning rate.", positive=True)


def learning_rate(default: float) -> Any:
    """Declares ``learning_rate: float`` of a study that trains with Adam."""
    return field(default, help="Learning rate of Adam.", positive=True)
