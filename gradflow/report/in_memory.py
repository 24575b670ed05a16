"""The diagnosis of a model in memory, from Python."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from gradflow.interop import Net, load
from gradflow.paths import user_path
from gradflow.report.experiment import Config, generated
from gradflow.report.nets import diagnose_net
from gradflow.report.page import write_page
from gradflow.report.samples import captured_batches
from gradflow.report.sections import whole
from gradflow.study import provenance

if TYPE_CHECKING:
    import xarray


def diagnose(
    model: Any,
    *,
    sample: Any = None,
    lengths: int | Sequence[int] | np.ndarray | None = None,
    folder: str | os.PathLike[str] | None = None,
    layer: str | None = None,
    activation: str | None = None,
    **options: Any,
) -> "xarray.Dataset":
    """Diagnoses the recurrent layers of a model, as the command ``gradflow diagnose`` does::

        found = gradflow.report.diagnose(torch_module, sample=batch, folder="diagnosis")

    Args:
      model: What `gradflow.load` takes, such as a PyTorch module, or a `Net`.
      sample: Inputs of the whole model, which is run on them: arrays by the name of the argument,
        or one array. By default every layer gets generated inputs.
      lengths: The number of real steps of each sequence of the sample, or one number for all; by
        default what the masks of a Keras model keep.
      folder: Where ``report.html`` is written; nowhere by default.
      layer: Beginning of the names of the layers.
      activation: ``tanh`` or ``relu``, for an RNN whose parameters do not say it.
      **options: Fields of `gradflow.report.experiment.Config`, such as loss, inputs, num_steps,
        num_sequences, needed_lag and advice.

    Returns:
      The measurements; the names of variables and dimensions begin with ``layer0_`` and so on.

    Raises:
      TypeError: If an option is unknown.
      ValueError: Whatever loading and measuring raise.
    """
    config = Config(**options)
    net = model if isinstance(model, Net) else load(model, layer=layer, activation=activation)
    with jax.enable_x64(True):
        if sample is None:
            batches = generated(config, net)
        else:
            given = sample if isinstance(sample, Mapping) else {"inputs": sample}
            arrays = {name: np.asarray(array) for name, array in given.items()}
            batches = captured_batches(
                net, arrays, None if lengths is None else np.asarray(lengths)
            )
        found = diagnose_net(
            net, batches, loss=config.loss, needed_lag=config.needed_lag, advice=config.advice
        )
    if folder is not None:
        facts = {"precision": "float64", **provenance.versions()}
        write_page(whole(found, facts), Path(user_path(folder)) / "report.html")
    return found
