"""Watches the gradient flow of a network while it trains, by one line in the training loop."""

from collections.abc import Mapping
from typing import Any

from gradflow.cell import Cell
from gradflow.flow.norms import Norm
from gradflow.report.live.monitor import Settings


def watch(
    model: Any,
    *,
    every: int = 100,
    folder: str = "watch",
    needed_lag: int | None = None,
    num_sequences: int = 4,
    norm: Norm = "spectral",
    max_cost: float | None = 0.02,
    sample: Any = None,
    tensorboard: bool = False,
    wandb: bool = False,
) -> Any:
    """Watches a training: measures the gradient flow of its recurrent layers every few updates::

        monitor = gradflow.watch(torch_module)                    # PyTorch: nothing else to do
        model.fit(x, y, callbacks=[gradflow.watch(model)])        # Keras
        monitor = gradflow.watch(cell)                            # JAX, and in the loop:
        monitor(step, params, inputs)                             # inputs (T, B, input)
        monitor = gradflow.watch(gradflow.load)                   # Flax or Haiku, and in the loop:
        monitor(step, variables, {"name of the layer": inputs})

    On a few sequences of the batch, in float64 and with the parameters of that update, it measures
    log ‖∂h_T/∂h_k‖ for every lag, the horizon (the lag at which the norm is 1e-3), the factor per
    step, the fraction of saturated units of each gate, and the first step whose state is not
    finite. Each measurement is one line of JSON in ``<folder>/watch.jsonl``, written at once, and
    is returned by ``monitor.dataset()``, or by `read_watch` from the file; ``monitor.close()``
    writes the page ``report.html`` beside it. The monitor never raises into the loop, draws no
    random numbers and changes no tensor: an error is recorded, and reported once. It prints a line
    for each layer whose horizon falls below the needed lag, or whose states are not finite, and
    again when the horizon has changed by a factor of 2.

    The first update is measured, and then one in ``every``, or less often: a measurement waits
    until all of them, without the compilation at the first, are at most ``max_cost`` of the time
    since the start.

    Args:
      model: A PyTorch module or a Keras model; or for a loop in JAX a cell, cells by name,
        `gradflow.load`, or a function of the parameters that returns a `Net` or cells with their
        parameters by name.
      every: Least number of updates between two measurements. An update of PyTorch is a forward
        pass in training mode that a backward pass follows.
      folder: The folder of the record, which is appended to.
      needed_lag: The lag at which the loss needs the gradient, in steps; by default the length of
        the sequences.
      num_sequences: The number of sequences; medians over them are recorded.
      norm: ``spectral``, as `flow.log_norms`, or ``frobenius``, which costs half.
      max_cost: Largest fraction of the time that measurements take; None measures one update in
        ``every`` whatever it costs.
      sample: Inputs of a Keras model, in place of those of the batch at hand.
      tensorboard: Whether the scalars are also written as event files of TensorBoard.
      wandb: Whether they are also logged to the active run of Weights & Biases.

    Returns:
      The monitor: a callback for Keras, a function for JAX. It is a context manager, or is ended by
      ``close()``; a compiled PyTorch module has to be watched before ``torch.compile``.

    Raises:
      TypeError: If an option is of another type, or the model of an unknown kind.
      ValueError: If an option is out of range, the model has no recurrent layer that can be
        imported, or a package is missing that was asked for.
    """
    settings = Settings(
        every, folder, needed_lag, num_sequences, norm, max_cost, tensorboard, wandb
    ).check()
    packages = {base.__module__.partition(".")[0] for base in type(model).__mro__}
    if "keras" in packages:
        from gradflow.report.live.keras_callback import keras_callback

        return keras_callback(model, settings, sample)
    if sample is not None:
        raise ValueError(
            "Expected no sample for a model that is not of Keras: its inputs are taken from the "
            "loop. Remove sample."
        )
    if "torch" in packages:
        from gradflow.report.live.torch_hooks import TorchMonitor

        return TorchMonitor(model, settings)
    if not isinstance(model, Cell | Mapping) and not callable(model):
        raise TypeError(
            f"Expected a PyTorch module, a Keras model, a cell, cells by name or a function, got "
            f"{type(model).__name__}. For variables of Flax pass gradflow.load here, and the "
            "variables to the monitor."
        )
    from gradflow.report.live.jax_calls import JaxMonitor, layers_of

    return JaxMonitor(layers_of(model), settings)
