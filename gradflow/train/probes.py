"""Probes: measurements of the gradient flow during a training, on the same sequences."""

from collections.abc import Callable
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


def log_norms(subject: Subject) -> Values:
    """Computes log ‖∂h_T/∂h_k‖ for k = 0 ... T, in nats."""
    cell, params, inputs, _ = subject
    return {"log_norms": flow.log_norms(cell, params, inputs)[::-1]}


def adjoints(subject: Subject) -> Values:
    """Computes log ‖∂L/∂h_k‖ for k = 0 ... T, in nats.

    Source: Vorontsov, Trabelsi, Kadoury, Pal 2017, arXiv:1702.00071, Fig. 3.
    """
    cell, params, inputs, loss = subject
    return {"adjoints": flow.log_adjoint_norms(loss, cell, params, inputs)}


def components(subject: Subject) -> Values:
    """Computes the log norm of the component of step k = 1 ... T in ∂L/∂W_h, in nats.

    All gates are taken together. A cell without a W_h is measured on all its parameters.
    """
    cell, params, inputs, loss = subject
    shares = flow.components(loss, cell, params, inputs)
    named = [
        (jax.tree_util.keystr(path, simple=True, separator=".").split(".")[-1], leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(shares)
    ]
    recurrent = [leaf for name, leaf in named if name == "W_h"]
    chosen = jnp.stack(recurrent or [leaf for _, leaf in named])
    return {"components": logsumexp(2 * chosen, axis=0) / 2}


def spectrum(subject: Subject) -> Values:
    """Computes the log singular values of ∂h_T/∂h_0, descending, in nats.

    NaN for those below the rounding error of the largest.
    """
    cell, params, inputs, _ = subject
    return {"spectrum": flow.leading_singular_values(cell, params, inputs, [len(inputs)])[0]}


def gates(subject: Subject) -> Values:
    """Computes the fraction of units at which each gate is saturated: below 0.1 or above 0.9."""
    cell, params, inputs, _ = subject
    shares = flow.saturation(flow.gates(cell, params, inputs))
    return {f"gates.{name}": jnp.sum(share, axis=-1) for name, share in shares.items()}


PROBES: dict[str, Callable[[Subject], Values]] = {
    "adjoints": adjoints,
    "components": components,
    "gates": gates,
    "log_norms": log_norms,
    "spectrum": spectrum,
}


def resolve_probes(specs: str, cell: Cell) -> tuple[str, ...]:
    """Reads a list of probes of a cell, separated by commas.

    Raises:
      ValueError: For an unknown probe, or for gates of a cell that has none.
    """
    names = tuple(dict.fromkeys(split_specs(specs)))
    for name in names:
        check_name("probe", name, PROBES)
    if "gates" in names and cell.gates is None:
        raise ValueError("The probe 'gates' needs a cell with gates. Remove it for this cell.")
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
        return {key: value for name in self.names for key, value in PROBES[name](what).items()}


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
