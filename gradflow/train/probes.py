"""Probes: measurements of the gradient flow during a training, on the same sequences."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import logsumexp
from jaxtyping import Array, Float

from gradflow import flow
from gradflow.cell import Cell, Key, Params
from gradflow.cells.dropout import with_noise
from gradflow.flow.reverse import Loss
from gradflow.spec import check_name, split_specs
from gradflow.tasks.task import Batch, Task
from gradflow.train.model import read_out
from gradflow.train.objective import LossKind, batch_loss
from gradflow.train.prober import Prober, Values


class Subject(NamedTuple):
    """One sequence through one model, as a probe measures it.

    Attributes:
      cell: The cell.
      params: Its parameters.
      inputs: x_1 ... x_T.
      loss: The outputs h_1 ... h_T -> the loss of this sequence.
    """

    cell: Cell
    params: Params
    inputs: Float[Array, "steps input"]
    loss: Loss


class Probe(NamedTuple):
    """A measurement that is repeated along a training, and what is kept of it.

    Attributes:
      measurement: Its name in `gradflow.flow.CATALOGUE`.
      keep: Its result -> an array, or arrays by name.
    """

    measurement: str
    keep: Callable[[Any], Any]


def _of_recurrent_weights(log_norms: Params) -> Array:
    """The log norms of all W_h together; of all parameters for a cell that has none."""
    named = [
        (jax.tree_util.keystr(path, simple=True, separator=".").split(".")[-1], leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(log_norms)
    ]
    recurrent = [leaf for name, leaf in named if name == "W_h"]
    chosen = jnp.stack(recurrent or [leaf for _, leaf in named])
    return logsumexp(2 * chosen, axis=0) / 2


PROBES: dict[str, Probe] = {
    # Vorontsov, Trabelsi, Kadoury, Pal 2017, arXiv:1702.00071, Fig. 3; k = 0 ... T.
    "adjoints": Probe("log_adjoint_norms", lambda log_norms: log_norms),
    # k = 1 ... T.
    "components": Probe("components", _of_recurrent_weights),
    # The fraction of units at which each gate is shut or open, t = 1 ... T.
    "gates": Probe("saturation", partial(jax.tree.map, partial(jnp.sum, axis=-1))),
    # By k = 0 ... T in place of the lag.
    "log_norms": Probe("log_norms", lambda log_norms: log_norms[::-1]),
    # Of ∂h_T/∂h_0; NaN for those that are lost in the rounding of the largest.
    "spectrum": Probe("leading_singular_values", lambda log_values: log_values[0]),
}


def _values(name: str, subject: Subject) -> Values:
    probe = PROBES[name]
    entry = flow.CATALOGUE[probe.measurement]
    cell, params, inputs, loss = subject
    needed = {"loss": {"loss": loss}, "lags": {"lags": [len(inputs)]}}
    options: dict[str, Any] = needed.get(entry.needs or "", {})
    found = probe.keep(entry(cell=cell, params=params, inputs=inputs, **options))
    if isinstance(found, dict):
        return {f"{name}.{key}": value for key, value in found.items()}
    return {name: found}


def resolve_probes(specs: str, cell: Cell) -> tuple[str, ...]:
    """Reads a list of probes of a cell, separated by commas.

    Raises:
      ValueError: For an unknown probe, or for gates of a cell that has none.
    """
    names = tuple(dict.fromkeys(split_specs(specs)))
    for name in names:
        check_name("probe", name, PROBES)
        if flow.CATALOGUE[PROBES[name].measurement].needs == "gates" and cell.gates is None:
            raise ValueError(
                f"The probe {name!r} needs a cell with gates. Remove it for this cell."
            )
    return names


class Probing(NamedTuple):
    """Which probes are measured on which sequences, the same for all runs at all times.

    Attributes:
      names: Names of `PROBES`.
      key: The key of the sequences.
      num_sequences: The number of sequences; the median over them is returned.
    """

    names: tuple[str, ...]
    key: Key
    num_sequences: int = 4


def probe(cell: Cell, task: Task, params: Params, probing: Probing) -> dict[str, np.ndarray]:
    """Measures the models of runs, in float64 and without noise.

    Args:
      cell: The cell.
      task: The task that it is trained on.
      params: The parameters of the models, with a leading axis of runs.
      probing: What to measure.

    Returns:
      Arrays by name, (runs, ...).

    Raises:
      ValueError: If the cell lacks what a probe measures.
    """
    return _prober(cell, task, probing)(params)


def prober(
    names: tuple[str, ...], subject: Callable[[Params, Any], Subject], sequences: Any
) -> Prober:
    """Makes what measures the models of runs during a training of any kind.

    Args:
      names: Names of `PROBES`.
      subject: (parameters of one run, one sequence) -> what is measured; hashable by value.
      sequences: A pytree of arrays with an axis of sequences in front.
    """
    return Prober(_Measure(names, subject), sequences)


class _Measure(NamedTuple):
    names: tuple[str, ...]
    subject: Callable[[Params, Any], Subject]

    def __call__(self, params: Params, sequence: Any) -> dict[str, Array]:
        what = self.subject(params, sequence)
        return {key: value for name in self.names for key, value in _values(name, what).items()}


def _prober(cell: Cell, task: Task, probing: Probing) -> Prober:
    batch = task.sample(probing.key, probing.num_sequences)
    sequences = jax.tree.map(lambda leaf: jnp.moveaxis(leaf, 1, 0)[:, :, None], batch)
    return prober(probing.names, _Readout(cell, task.loss), sequences)


class _Readout(NamedTuple):
    """A cell with a linear readout, on one sequence of a task."""

    cell: Cell
    kind: LossKind

    def __call__(self, params: Params, batch: Batch) -> Subject:
        own, inputs = with_noise(self.cell, None, params["cell"], batch.inputs)

        def loss(outputs: Array) -> Array:
            return batch_loss(self.kind, read_out(params["readout"], outputs)[:, None], batch)

        return Subject(self.cell, own, inputs[:, 0], loss)
