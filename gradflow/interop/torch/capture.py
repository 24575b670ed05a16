"""The inputs of the recurrent layers of a PyTorch module, while it runs on a sample."""

import contextlib
import inspect
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np

from gradflow.checks import shorten
from gradflow.interop.feeding import feed, to_lowest
from gradflow.interop.net import Layer, Net


class Call(NamedTuple):
    """One call of a recurrent module.

    Attributes:
      inputs: Its inputs, (N, T, input).
      is_start: Whether it starts from a state of zeros, and with it a new sequence.
    """

    inputs: np.ndarray
    is_start: bool


def capture(
    module: Any,
    layers: Sequence[Layer],
    sources: Mapping[str, Any],
    sample: Mapping[str, np.ndarray],
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
    with _hooked(module, sources.values(), calls):
        _run(module, sample)
    found: dict[str, np.ndarray] = {}
    for source in {id(source): source for source in sources.values()}.values():
        own = [layer for layer in layers if sources[layer.name] is source]
        if calls[id(source)]:
            inputs = _joined(own[0].name, calls[id(source)])
            part = Net("PyTorch", tuple(own))
            found |= feed(part, to_lowest(part, inputs))
    return found


@contextlib.contextmanager
def _hooked(module: Any, sources: Any, calls: Mapping[int, list[Call]]) -> Iterator[None]:
    """Records the calls of modules, with every module in evaluation mode."""
    modes = {one: one.training for one in module.modules()}
    handles = [
        source.register_forward_pre_hook(partial(_record, calls[key]), with_kwargs=True)
        for key, source in {id(source): source for source in sources}.items()
    ]
    try:
        module.eval()
        yield
    finally:
        for handle in handles:
            handle.remove()
        for one, mode in modes.items():
            one.training = mode


def _record(calls: list[Call], module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    torch = import_module("torch")

    given = dict(zip(("input", "hx"), args, strict=False)) | kwargs
    inputs, state = given["input"], given.get("hx")
    is_cell = isinstance(module, torch.nn.RNNCellBase)
    if isinstance(inputs, torch.nn.utils.rnn.PackedSequence):
        inputs, lengths = torch.nn.utils.rnn.pad_packed_sequence(inputs, batch_first=True)
        if len(set(lengths.tolist())) > 1:
            raise ValueError(
                "Expected sequences of one length, got packed sequences of the lengths "
                f"{shorten(lengths.tolist())}. Give a sample of sequences of the same length."
            )
    elif is_cell:
        inputs = inputs[None, None] if inputs.ndim == 1 else inputs[:, None]
    elif inputs.ndim == 2:
        inputs = inputs[None]
    elif not module.batch_first:
        inputs = inputs.swapaxes(0, 1)
    states = state if isinstance(state, tuple | list) else [state]
    is_start = all(s is None or not bool(s.any()) for s in states)
    calls.append(Call(inputs.detach().cpu().double().numpy().copy(), is_start))


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


def _run(module: Any, sample: Mapping[str, np.ndarray]) -> None:
    torch = import_module("torch")

    example = next(module.parameters(), torch.zeros(()))

    def tensor(array: np.ndarray) -> Any:
        found = torch.from_numpy(np.array(array)).to(example.device)
        return found.to(example.dtype) if found.is_floating_point() else found

    arguments = {name: tensor(array) for name, array in sample.items()}
    known = inspect.signature(module.forward).parameters
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
