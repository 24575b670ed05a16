"""Facts of the states of a layer and of its recurrent matrices, which need no derivative."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from gradflow import flow
from gradflow.cell import Params

Arrays = dict[str, tuple[tuple[str, ...], Any]]
"""Variables of a dataset by name: dimensions and values."""


def of_states(outputs: Float[np.ndarray, "n t output"], lengths: np.ndarray) -> Arrays:
    """Describes the real states: the deviation and saturation of each unit, the effective rank."""
    real = np.arange(outputs.shape[1]) < lengths[:, None]
    states = outputs[real]
    states = states[np.isfinite(states).all(axis=1)]
    if not len(states):
        missing = np.full(outputs.shape[-1], np.nan)
        return {
            "unit_deviation": (("unit",), missing),
            "unit_saturation": (("unit",), missing),
            "effective_rank": ((), np.nan),
        }
    values = np.linalg.svd(states - states.mean(axis=0), compute_uv=False)
    rank = float(flow.effective_rank(jnp.log(jnp.asarray(values)))) if values.any() else 0.0
    return {
        "unit_deviation": (("unit",), states.std(axis=0)),
        "unit_saturation": (("unit",), (np.abs(states) > 0.99).mean(axis=0)),
        "effective_rank": ((), rank),
    }


def of_inputs(x: Float[np.ndarray, "n t input"], lengths: np.ndarray) -> Arrays:
    """Describes the inputs: their deviation at each step, and the first step that is not finite.

    The deviation is that between sequences; of one sequence, the change from the step before. The
    first step counts from 1, and is -1 for a sequence whose real steps are finite.
    """
    with np.errstate(invalid="ignore"):  # inputs may be infinite, which is reported below
        if len(x) > 1 or x.shape[1] == 1:
            deviation = x.std(axis=0).max(axis=-1, initial=0.0)
        else:
            changes = np.abs(np.diff(x[0], axis=0)).max(axis=-1, initial=0.0)
            deviation = np.append(changes[:1], changes)
    wrong = ~np.isfinite(x).all(axis=-1) & (np.arange(x.shape[1]) < lengths[:, None])
    first = np.where(wrong.any(axis=1), wrong.argmax(axis=1) + 1, -1)
    return {"input_deviation": (("step",), deviation), "first_nonfinite_input": (("run",), first)}


def recurrent(params: Params) -> dict[str, Any]:
    """Returns the recurrent matrices, by gate where there are several."""
    found = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        *gate, name = jax.tree_util.keystr(path, simple=True, separator=".").split(".")
        if name == "W_h":
            found[".".join(gate) or name] = leaf
    return found


def of_weights(params: Params) -> Arrays:
    """Describes every recurrent matrix by its spectral radius and its spectral norm."""
    facts = []
    for W in recurrent(params).values():
        if not np.isfinite(W).all():
            facts.append((np.nan, np.nan))
            continue
        square = W.shape[0] == W.shape[1]
        radius = np.abs(np.linalg.eigvals(W)).max() if square else np.nan
        facts.append((radius, np.linalg.norm(W, ord=2)))
    radii, norms = zip(*facts, strict=True) if facts else ((), ())
    return {
        "spectral_radius": (("matrix",), np.asarray(radii)),
        "spectral_norm": (("matrix",), np.asarray(norms)),
    }
