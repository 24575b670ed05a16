"""Recurrent layers from arrays with the names that PyTorch or Keras gives them."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from gradflow.cell import Params
from gradflow.checks import shorten
from gradflow.interop.arrays.names import KERAS, TORCH, Group, describe, find_groups
from gradflow.interop.gates import KINDS, NUM_GATES, keras_cell, keras_params, torch_params
from gradflow.interop.loading import Options
from gradflow.interop.net import Layer, Net, layer_of
from gradflow.interop.torch.runs import torch_original
from gradflow.interop.verification import compared, importable, noted

CONVENTIONS = {"torch": "PyTorch", "keras": "Keras"}
"""The layouts that named arrays can have, and the frameworks they are of."""

Arrays = Mapping[str, np.ndarray]
"""The arrays of a layer by what they are: W_x, W_h, b, b_x, b_h, W_hr."""


def from_names(
    names: Sequence[str],
    get: Callable[[str], np.ndarray],
    framework: str,
    options: Options,
) -> Net:
    """Returns the recurrent layers among named arrays, of which only theirs are read.

    Args:
      names: The names of all arrays, such as ``encoder.weight_hh_l0``.
      get: Returns an array by its name.
      framework: Where they come from; if empty, the framework that gives such names.
      options: What the user says about them.

    Raises:
      ValueError: If no layer can be imported; the message has the reasons.
    """
    layers: dict[str, Layer] = {}
    unsupported: dict[str, str] = {}
    groups = find_groups(names)
    if not groups:
        raise ValueError(
            f"Expected arrays with the names of PyTorch ({', '.join(TORCH)}) or Keras "
            f"({', '.join(KERAS)}), got {describe(names)}. Rename the arrays of the recurrent "
            "layer, or load the model itself."
        )
    for group in groups:
        arrays = {role: get(name) for role, name in group.roles.items()}
        try:
            layers[group.name] = _layer(group, arrays, options, layers)
        except ValueError as error:
            unsupported[group.name] = str(error)
    known = sorted({CONVENTIONS[group.convention] for group in groups if group.convention})
    return importable(Net(framework or " and ".join(known), tuple(layers.values()), unsupported))


def _layer(group: Group, arrays: Arrays, options: Options, others: Mapping[str, Layer]) -> Layer:
    convention = _convention(group, options)
    _check_arrays(group, arrays)
    with np.errstate(all="ignore"):  # signalling NaN and numbers beyond float64 are reported later
        arrays = {role: np.asarray(array, np.float64) for role, array in arrays.items()}
    if convention == "torch":
        spec, params, words = _from_torch(arrays)
    else:
        spec, params, words = _from_keras(arrays, is_named=options.convention is not None)
    kind, is_reverse = spec.partition("(")[0], group.direction == "reverse"
    if kind == "rnn":
        spec = f"rnn(activation={_activation(options)!r})"
    below = [others[name] for name in group.fed_by if name in others]
    fed_by = group.fed_by if len(below) == len(group.fed_by) else ()
    layer = layer_of(group.name, spec, params, words, is_reverse, fed_by=fed_by)
    layer = noted(layer, "the layer below was not imported" * (fed_by != group.fed_by))
    sizes = sum(one.output_size for one in below)
    if fed_by and layer.input_size != sizes:
        raise ValueError(
            f"Expected inputs of size {sizes}, the outputs of the layer below, got "
            f"{layer.input_size}. Save all directions of a layer together."
        )
    if convention == "keras":
        layer = noted(layer, "activations tanh and sigmoid are assumed" * (kind != "rnn"))
    if not options.verify:
        return layer
    if convention == "keras":
        return noted(layer, "not verified: a file of arrays has no model to compare with")
    try:
        original = torch_original(kind, arrays, options.activation)
    except ModuleNotFoundError:
        return noted(layer, "not verified: PyTorch is not installed")
    return compared(layer, original, reads_forwards=True)


def _convention(group: Group, options: Options) -> str:
    """Which framework's layout the arrays have: what the user says, or what their names say."""
    given = options.convention
    if given is not None and given not in CONVENTIONS:
        raise ValueError(
            f"Expected the convention torch or keras for named arrays, got {given}. Load a model "
            "of Flax or Haiku from memory."
        )
    found = given or group.convention
    if found is None:
        names = ", ".join(group.roles.values())
        raise ValueError(
            f"Expected names of PyTorch or Keras, which tell the layout of the gates, got "
            f"{shorten(names)}. Set --convention=torch or --convention=keras (in Python: "
            "convention='torch')."
        )
    return found


def _activation(options: Options) -> str:
    if options.activation is None:
        raise ValueError(
            "Expected the activation of an RNN, which arrays do not tell. Set --activation=tanh "
            "or --activation=relu (in Python: activation='tanh')."
        )
    return options.activation


def _check_arrays(group: Group, arrays: Arrays) -> None:
    if not {"W_x", "W_h"} <= set(arrays):
        raise ValueError(
            f"Expected the matrices of the inputs and of the hidden state, got only "
            f"{', '.join(group.roles.values())}. Remove weight normalisation and other "
            "parametrisations before saving."
        )
    for role, array in arrays.items():
        axes = 2 if role.startswith("W") else 1
        if array.ndim not in (axes, axes + (role == "b")):
            raise ValueError(
                f"Expected {axes} axes in {group.roles[role]}, got the shape {array.shape}. Save "
                "the array as the framework has it."
            )
        # The types of ml_dtypes, such as bfloat16, have NumPy's kind of raw bytes.
        if array.dtype.kind not in "fV" or array.dtype.type is np.void:
            raise ValueError(
                f"Expected floating-point numbers in {group.roles[role]}, got {array.dtype}. Save "
                "the network before quantisation."
            )


def _from_torch(arrays: Arrays) -> tuple[str, Params, str]:
    """Checks arrays in PyTorch's layout, and returns what `torch_params` does."""
    W_x, W_h, W_hr = arrays["W_x"], arrays["W_h"], arrays.get("W_hr")
    kind = "lstm" if W_hr is not None else _kind_of(W_h.shape, "torch")
    rows, recurrent = W_h.shape
    hidden = recurrent if W_hr is None else W_hr.shape[1]
    if "b" in arrays and (kind == "gru" or "b_x" in arrays or "b_h" in arrays):
        raise ValueError(
            "Expected the two biases bias_ih and bias_hh, got an array for a single bias. Rename "
            "the arrays as in PyTorch, or load a model of Equinox from memory."
        )
    expected = {"W_x": (rows, W_x.shape[1]), "W_h": (NUM_GATES[kind] * hidden, recurrent)}
    expected |= {"W_hr": (recurrent, hidden)}
    expected |= dict.fromkeys(("b", "b_x", "b_h"), (rows,))
    _check_shapes(arrays, expected, hidden)
    return torch_params(arrays)


def _from_keras(arrays: Arrays, *, is_named: bool) -> tuple[str, Params, str]:
    """Returns cell, parameters and layout; is_named is whether the user named the convention."""
    W_x, W_h, bias = arrays["W_x"], arrays["W_h"], arrays.get("b")
    kind = _kind_of(W_h.shape, "keras")
    given = [W_x, W_h] if bias is None else [W_x, W_h, bias]
    cell = keras_cell([array.shape for array in given])
    hidden, columns = W_h.shape
    expected = {"W_x": (W_x.shape[0], columns), "W_h": (hidden, columns), "b": (columns,)}
    _check_shapes(
        arrays, expected | ({"b": bias.shape} if cell and bias is not None else {}), hidden
    )
    if kind == "gru" and bias is None and not is_named:
        raise ValueError(
            "Expected a bias that tells whether a Keras GRU has reset_after, got none. Load the "
            ".keras file, or name the convention keras for Keras's default, reset_after=True."
        )
    assert cell is not None
    return cell, *keras_params(cell, W_x, W_h, bias)


def _kind_of(shape: tuple[int, ...], convention: str) -> str:
    """Returns ``rnn``, ``gru`` or ``lstm``, by the shape of a recurrent matrix."""
    tall, wide = shape if convention == "torch" else shape[::-1]
    if wide < 1 or tall % wide or tall // wide not in KINDS:
        fits = wide and not wide % tall if tall else False
        hint = " It fits the convention of the other framework." * bool(fits and tall < wide)
        usual = "(gates * hidden, hidden)" if convention == "torch" else "(hidden, gates * hidden)"
        raise ValueError(
            f"Expected a recurrent matrix of shape {usual} with 1, 3 or 4 gates by the convention "
            f"{convention}, got {shape}.{hint} Name the right one with convention."
        )
    return KINDS[tall // wide]


def _check_shapes(arrays: Arrays, expected: Mapping[str, tuple[int, ...]], hidden: int) -> None:
    shapes = {role: array.shape for role, array in arrays.items()}
    wanted = {role: expected.get(role) for role in shapes}
    if hidden < 1 or shapes != wanted:
        raise ValueError(
            f"Expected arrays of the shapes {wanted} by its recurrent matrix, got {shapes}. If the "
            "layout is that of another framework, name it with convention."
        )
