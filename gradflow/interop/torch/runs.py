"""Runs of PyTorch: a layer that is built from arrays, and a module with its layers observed."""

import contextlib
import inspect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np

from gradflow.checks import shorten
from gradflow.interop.gates import NUM_GATES
from gradflow.interop.net import Layer, Net, feed, to_lowest
from gradflow.interop.verification import Run


def torch_original(kind: str, arrays: Mapping[str, np.ndarray], activation: str | None) -> Run:
    """Builds a layer of `torch.nn` in float64 and returns a function that runs it forwards.

    Args:
      kind: ``rnn``, ``gru`` or ``lstm``.
      arrays: Its arrays in PyTorch's layout, as `gradflow.interop.gates.torch_params` takes them.
      activation: The activation, if it is an RNN.
    """
    torch = import_module("torch")

    projection = arrays.get("W_hr")
    rows, (_, input_size) = len(arrays["W_h"]), arrays["W_x"].shape
    biases = {"bias_ih_l0": arrays.get("b_x", arrays.get("b")), "bias_hh_l0": arrays.get("b_h")}
    has_bias = any(bias is not None for bias in biases.values())
    options: dict[str, Any] = {"bias": has_bias, "batch_first": True, "dtype": torch.float64}
    options |= {"nonlinearity": activation} if kind == "rnn" else {}
    weights = {"weight_ih_l0": arrays["W_x"], "weight_hh_l0": arrays["W_h"]}
    if projection is not None:
        options |= {"proj_size": len(projection)}
        weights |= {"weight_hr_l0": projection}
    if has_bias:
        weights |= {n: np.zeros(rows) if bias is None else bias for n, bias in biases.items()}
    # Named by its class: getattr(torch.nn, kind.upper()) would hide what is made here.
    make = {"rnn": torch.nn.RNN, "gru": torch.nn.GRU, "lstm": torch.nn.LSTM}[kind]
    module = make(input_size, rows // NUM_GATES[kind], **options)
    module.load_state_dict(
        {name: torch.from_numpy(np.array(a, np.float64)) for name, a in weights.items()}
    )

    def run(inputs: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return module(torch.from_numpy(np.asarray(inputs, np.float64)))[0].numpy()

    return run


class Call(NamedTuple):
    """One call of a recurrent module, for some of its sequences.

    Attributes:
      inputs: Its inputs, (N, T, input).
      lengths: The number of real steps of each sequence.
      states: The initial states (layers and directions, N, size): h, or h and c; none if not given.
      is_start: Whether it starts from a state of zeros, and with it a new sequence.
    """

    inputs: np.ndarray
    lengths: np.ndarray
    states: tuple[np.ndarray, ...]
    is_start: bool


def call_of(
    module: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], count: int | None = None
) -> Call:
    """Returns what a recurrent module is called with, copied; of the first ``count`` sequences."""
    torch = import_module("torch")

    given = dict(zip(("input", "hx"), args, strict=False)) | dict(kwargs)
    inputs, hx = given["input"], given.get("hx")
    states = () if hx is None else tuple(hx) if isinstance(hx, tuple | list) else (hx,)
    lengths = None
    if isinstance(inputs, torch.nn.utils.rnn.PackedSequence):
        inputs, lengths = torch.nn.utils.rnn.pad_packed_sequence(inputs, batch_first=True)
        lengths = lengths[:count].numpy()
    elif isinstance(module, torch.nn.RNNCellBase):
        inputs = inputs[None, None] if inputs.ndim == 1 else inputs[:, None]
        states = tuple(s.reshape(1, -1, s.shape[-1]) for s in states)
    elif inputs.ndim == 2:
        inputs, states = inputs[None], tuple(state[:, None] for state in states)
    elif not module.batch_first:
        inputs = inputs.swapaxes(0, 1)
    x = array_of(inputs[:count])
    starts = tuple(array_of(state[:, :count]) for state in states)
    full = np.full(len(x), x.shape[1])
    return Call(x, full if lengths is None else lengths, starts, not any(map(np.any, starts)))


def array_of(tensor: Any) -> np.ndarray:
    """Returns a copy of a tensor in float64."""
    return tensor.detach().cpu().double().numpy().copy()


def capture(
    module: Any, layers: Sequence[Layer], sources: Mapping[str, Any], sample: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    """Runs a module in evaluation mode and returns the inputs (N, T, input) of its layers by name.

    Calls that continue from the state of the call before, such as those of a cell in a loop, are
    joined along time. Calls that start from zeros are joined along N. Layers that were not called
    are missing in the result.

    Args:
      module: The module. Its modes are restored; it is neither copied nor trained.
      layers: Its layers.
      sources: The module that runs each layer, by the layer's name.
      sample: The arguments of the module by name; or one array of any name, the first argument.

    Raises:
      ValueError: If the module fails on the sample, or gets sequences of different lengths.
    """
    calls: dict[int, list[Call]] = {id(source): [] for source in sources.values()}
    with evaluating(module), _hooked(sources.values(), calls):
        run_on_sample(module, sample, list(inspect.signature(module.forward).parameters))
    found: dict[str, np.ndarray] = {}
    for source in {id(source): source for source in sources.values()}.values():
        if calls[id(source)]:
            own = [layer for layer in layers if sources[layer.name] is source]
            found |= inputs_of_layers(own, calls[id(source)])
    return found


def inputs_of_layers(layers: Sequence[Layer], calls: Sequence[Call]) -> dict[str, np.ndarray]:
    """Returns the inputs (N, T, input) of each layer of one module, from the module's calls."""
    part = Net("PyTorch", tuple(layers))
    return feed(part, to_lowest(part, _joined(layers[0].name, calls)))


@contextlib.contextmanager
def evaluating(module: Any) -> Iterator[None]:
    """Keeps every module in evaluation mode while the context is open."""
    modes = {one: one.training for one in module.modules()}
    try:
        module.eval()
        yield
    finally:
        for one, mode in modes.items():
            one.training = mode


@contextlib.contextmanager
def _hooked(sources: Iterable[Any], calls: Mapping[int, list[Call]]) -> Iterator[None]:
    """Records the calls of modules."""
    handles = [
        source.register_forward_pre_hook(partial(_record, calls[key]), with_kwargs=True)
        for key, source in {id(source): source for source in sources}.items()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _record(calls: list[Call], module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    call = call_of(module, args, kwargs)
    if len(set(call.lengths.tolist())) > 1:
        raise ValueError(
            "Expected sequences of one length, got packed sequences of the lengths "
            f"{shorten(call.lengths.tolist())}. Give a sample of sequences of the same length."
        )
    calls.append(call)


def _joined(name: str, calls: Sequence[Call]) -> np.ndarray:
    """Joins the calls that continue each other along time, and the sequences along N."""
    sequences: list[list[np.ndarray]] = []
    for call in calls:
        if call.is_start or not sequences:
            sequences.append([])
        sequences[-1].append(call.inputs)
    try:
        return np.concatenate([np.concatenate(parts, axis=1) for parts in sequences], axis=0)
    except ValueError:
        shapes = sorted({call.inputs.shape for call in calls})
        raise ValueError(
            f"Expected calls of {name} that form sequences of one length, got inputs of the shapes "
            f"{shorten(shapes)}. Give a sample of sequences of the same length."
        ) from None


def run_on_sample(module: Any, sample: Mapping[str, Any], known: Sequence[str]) -> None:
    """Runs a module on arrays; ``known`` are the names of the arguments of its forward.

    Raises:
      ValueError: If the module fails on them.
    """
    torch = import_module("torch")

    example = next(module.parameters(), torch.zeros(()))

    def tensor(array: np.ndarray) -> Any:
        found = torch.from_numpy(np.array(array)).to(example.device)
        return found.to(example.dtype) if found.is_floating_point() else found

    arguments = {name: tensor(array) for name, array in sample.items()}
    try:
        with torch.no_grad():
            if len(arguments) == 1 and not set(arguments) <= set(known):
                module(*arguments.values())
            else:
                module(**arguments)
    except Exception as error:  # code of the user
        if isinstance(error, ValueError) and str(error).startswith("Expected sequences of one"):
            raise
        shapes = {name: np.shape(array) for name, array in sample.items()}
        raise ValueError(
            f"Expected a sample that the model can run on, got arrays of the shapes {shapes}: "
            f"{type(error).__name__}: {shorten(error)}. Name the arrays as the arguments of its "
            f"forward: {', '.join(known)}."
        ) from None
