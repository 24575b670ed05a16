"""Probes: the gradient flow of runs under training, measured now and then on the same sequences."""

import functools
from collections.abc import Callable, Mapping
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
from gradflow.spec import split_specs, unknown_name
from gradflow.tasks.task import Batch, Task
from gradflow.train.model import read_out
from gradflow.train.objective import LossKind, batch_loss

Values = Mapping[str, Array]
"""What a probe measures, by name."""


class Subject(NamedTuple):
    """One sequence through one model: what a probe measures.

    Attributes:
      cell: The cell.
      params: Its parameters.
      inputs: x_1 ... x_T.
      loss: The outputs h_1 ... h_T -> the task's loss of this sequence.
    """

    cell: Cell
    params: Params
    inputs: Float[Array, "steps input"]
    loss: Loss


def log_norms(subject: Subject) -> Values:
    """log ‖∂h_T/∂h_k‖ for k = 0 ... T, in nats."""
    cell, params, inputs, _ = subject
    return {"log_norms": flow.log_norms(cell, params, inputs)[::-1]}


def adjoints(subject: Subject) -> Values:
    """log ‖∂L/∂h_k‖ for k = 0 ... T, in nats.

    Source: Vorontsov, Trabelsi, Kadoury, Pal 2017, arXiv:1702.00071, Fig. 3.
    """
    cell, params, inputs, loss = subject
    return {"adjoints": flow.log_adjoint_norms(loss, cell, params, inputs)}


def components(subject: Subject) -> Values:
    """The log norm of the share of step k = 1 ... T in ∂L/∂W_h, all gates together, in nats.

    For a cell that has nothing called W_h: in the gradient of all its parameters.
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
    """The logarithms of the singular values of ∂h_T/∂h_0, descending, in nats.

    NaN for those that are lost in the rounding of the largest.
    """
    cell, params, inputs, _ = subject
    return {"spectrum": flow.leading_singular_values(cell, params, inputs, [len(inputs)])[0]}


def gates(subject: Subject) -> Values:
    """The share of units at which each gate is saturated at t = 1 ... T: below 0.1 or above 0.9."""
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
    """Splits a list of probes of a cell at its commas.

    Raises:
      ValueError: For one that is not known, or measures gates where the cell has none.
    """
    names = tuple(dict.fromkeys(split_specs(specs)))
    for name in names:
        if name not in PROBES:
            raise ValueError(unknown_name("probe", name, PROBES))
    if "gates" in names and cell.gates is None:
        raise ValueError("the probe 'gates' needs a cell with gates: leave it out for this one")
    return names


class Probing(NamedTuple):
    """Which probes, on which sequences: the same ones for all runs at all times.

    Attributes:
      names: Of `PROBES`.
      key: Draws the sequences.
      num_sequences: How many; what is kept is the median over them.
    """

    names: tuple[str, ...]
    key: Key
    num_sequences: int = 4


def probe(cell: Cell, task: Task, params: Params, probing: Probing) -> dict[str, np.ndarray]:
    """Measures the models of runs, in float64 and without noise, whatever they are trained in.

    Args:
      cell: The cell.
      task: What it is trained on.
      params: Those of the models, with a leading axis of runs.
      probing: What to measure.

    Returns:
      Arrays by name, (runs, ...).

    Raises:
      ValueError: If the cell lacks what a probe measures.
    """
    arguments = _arguments(task, params, probing)
    with jax.enable_x64(True):
        return jax.device_get(_compiled(cell, task.loss, probing.names)(*arguments))


def probe_shapes(
    cell: Cell, task: Task, params: Params, probing: Probing
) -> dict[str, jax.ShapeDtypeStruct]:
    """The shapes of what `probe` would return, and its errors, without measuring."""
    arguments = _arguments(task, params, probing)
    with jax.enable_x64(True):
        return jax.eval_shape(partial(_measure, cell, task.loss, probing.names), *arguments)


def _arguments(task: Task, params: Params, probing: Probing) -> tuple[Params, Batch]:
    """Parameters and sequences on the host, where they lose the float type they were made in."""
    batch = task.sample(probing.key, probing.num_sequences)
    return jax.tree.map(_to_float64, jax.device_get((params, batch)))


def _to_float64(leaf: np.ndarray) -> np.ndarray:
    return leaf.astype(np.float64) if np.issubdtype(leaf.dtype, np.floating) else leaf


@functools.cache
def _compiled(cell: Cell, kind: LossKind, names: tuple[str, ...]) -> Callable[..., Values]:
    return flow.jit_to_run_once(partial(_measure, cell, kind, names))


def _measure(
    cell: Cell, kind: LossKind, names: tuple[str, ...], params: Params, batch: Batch
) -> dict[str, Array]:
    def one_sequence(params: Params, batch: Batch) -> dict[str, Array]:
        def loss(outputs: Array) -> Array:
            return batch_loss(kind, read_out(params["readout"], outputs)[:, None], batch)

        subject = Subject(cell, params["cell"], batch.inputs[:, 0], loss)
        return {key: value for name in names for key, value in PROBES[name](subject).items()}

    def one_run(params: Params) -> dict[str, Any]:
        own, inputs = with_noise(cell, None, params["cell"], batch.inputs)
        whole = batch._replace(inputs=inputs)
        sequences = jax.tree.map(lambda leaf: jnp.moveaxis(leaf, 1, 0)[:, :, None], whole)
        values = flow.over_runs(partial(one_sequence, params | {"cell": own}))(sequences)
        return jax.tree.map(partial(jnp.median, axis=0), values)

    return flow.over_runs(one_run)(params)
