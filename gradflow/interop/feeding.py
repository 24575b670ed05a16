"""The inputs of each layer of a net, from those of the lowest layers."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float

from gradflow.interop.net import Net


def to_lowest(net: Net, inputs: Float[np.ndarray, "n t input"]) -> dict[str, np.ndarray]:
    """Returns the same inputs for each layer that no other layer feeds, as `feed` takes them."""
    return {layer.name: inputs for layer in net.layers if not layer.fed_by}


def feed(net: Net, given: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns the inputs (N, T, input) of each layer, in the time of the model.

    Args:
      net: The net.
      given: Those of the layers that no other layer feeds. A layer that is fed by others gets their
        outputs side by side; one whose inputs depend on what is not given is left out.
    """
    found, outputs = dict(given), {}
    for layer in net.layers:
        if (
            layer.fed_by
            and layer.name not in found
            and all(name in outputs for name in layer.fed_by)
        ):
            found[layer.name] = np.concatenate([outputs[name] for name in layer.fed_by], axis=-1)
        if layer.name in found:
            outputs[layer.name] = layer.run(found[layer.name])
    return found
