"""What is probed of a network during its training, and on which texts."""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import numpy as np
from _kit import probes

from classification.config import Config
from classification.nets import Net
from gradflow import Params
from gradflow.data.corpus import Part
from gradflow.train.probes import Subject


class WholeText(NamedTuple):
    """Takes one whole text through a network, as a probe measures it.

    The cell is the first forward one, and the loss, -log p(class) without dropout, is a function of
    its h. The h of a backward cell do not depend on them, and are held fixed.
    """

    net: Net

    def __call__(self, params: Params, text: tuple[jax.Array, jax.Array]) -> Subject:
        """Returns what is measured, given parameters, the words of a text and its class."""
        (words, label), net = text, self.net
        assert net.cell is not None and net.above is not None
        inputs, above = params["embedding"][words], net.above

        def loss(h: jax.Array) -> jax.Array:
            top = above(params["layers"], h, inputs)
            scores = params["head"]["W"] @ top + params["head"]["b"]
            return -jax.nn.log_softmax(scores)[label]

        return Subject(net.cell, net.cell_params(params["layers"]), inputs, loss)


def alike(part: Part, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns whole texts of one length, which need no padding, and their classes.

    The length is the longest that so many texts have, or the most common one if none has as many.
    """
    lengths = np.array([len(words) for words in part.sequences])
    counts = np.bincount(lengths)
    number = min(number, counts.max())
    rows = np.flatnonzero(lengths == np.flatnonzero(counts >= number)[-1])[:number]
    return np.stack([part.sequences[row] for row in rows]), np.asarray(part.labels)[rows]


def check_probes(config: Config, nets: Mapping[str, Net]) -> None:
    """Checks the probes before anything is trained.

    Raises:
      ValueError: If a probe is not known, or no network has what it measures.
    """
    cells = [net.cell for net in nets.values() if net.cell is not None]
    if config.probe and not cells:
        raise ValueError(
            f"Expected a recurrent model for --probe={config.probe}, got {config.models!r}. "
            "Add one, such as gru."
        )
    for cell in cells:
        probes.names(config.probe, cell)
