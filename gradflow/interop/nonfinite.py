"""Where parameters are not finite, in words."""

import jax
import numpy as np

from gradflow.cell import Params


def describe_nonfinite(params: Params) -> str:
    """Returns which parameters have NaN or infinities and where the first is; "" if none has."""
    found = []
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        bad = np.argwhere(~np.isfinite(leaf))
        if len(bad):
            place = tuple(bad[0].tolist())
            name = jax.tree_util.keystr(path, simple=True, separator=".")
            found.append(
                f"{name} has {len(bad)} numbers that are not finite, the first {leaf[place]} at "
                f"{place}"
            )
    return "; ".join(found)
