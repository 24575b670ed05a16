"""What the note of an imported layer says."""

import jax
import numpy as np

from gradflow.cell import Params


def joined_notes(*notes: str) -> str:
    """Returns the notes that are not empty as one text."""
    return "; ".join(filter(None, notes))


def nonfinite_note(params: Params) -> str:
    """Says which parameters have NaN or infinities; empty if none have."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    names = [
        jax.tree_util.keystr(path, simple=True, separator=".")
        for path, leaf in leaves
        if not np.isfinite(leaf).all()
    ]
    return f"not finite: {', '.join(names)}" if names else ""
