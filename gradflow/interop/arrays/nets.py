"""Recurrent layers from arrays with the names that PyTorch or Keras gives them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from gradflow.checks import shorten
from gradflow.interop.arrays.layouts import Layout, keras_layout, torch_layout
from gradflow.interop.arrays.names import KERAS, TORCH, Group, describe, find_groups
from gradflow.interop.loading import Options
from gradflow.interop.net import Layer, Net, compared
from gradflow.interop.torch.reference import is_torch_installed, torch_original

DEFAULTS = Options()

CONVENTIONS = {"torch": "PyTorch", "keras": "Keras"}
"""The layouts that named arrays can have, and the frameworks they are of."""


def from_arrays(
    arrays: Mapping[str, np.ndarray], framework: str = "", options: Options = DEFAULTS
) -> Net:
    """Returns the recurrent layers among named arrays.

    Args:
      arrays: The arrays by name, such as ``encoder.weight_hh_l0``.
      framework: Where they come from; by default the framework that gives such names.
      options: What the user says about them.

    Raises:
      ValueError: If no layer can be imported; the message has the reasons.
    """
    return from_names(list(arrays), arrays.__getitem__, framework, options)


def from_names(
    names: Sequence[str],
    get: Callable[[str], np.ndarray],
    framework: str = "",
    options: Options = DEFAULTS,
) -> Net:
    """Returns the recurrent layers among named arrays, of which only theirs are read.

    Args:
      names: The names of all arrays.
      get: Returns an array by its name.
      framework: Where they come from; by default the framework that gives such names.
      options: What the user says about them.

    Raises:
      ValueError: If no layer can be imported; the message has the reasons.
    """
    layers: dict[str, Layer] = {}
    unsupported: dict[str, str] = {}
    groups = find_groups(names)
    frameworks = {CONVENTIONS[group.convention] for group in groups if group.convention}
    for group in groups:
        arrays = {role: get(name) for role, name in group.roles.items()}
        try:
            layers[group.name] = _layer(group, arrays, options, layers)
        except ValueError as error:
            unsupported[group.name] = str(error)
    if not groups:
        raise ValueError(
            f"Expected arrays with the names of PyTorch ({', '.join(TORCH)}) or Keras "
            f"({', '.join(KERAS)}), got {describe(names)}. Rename the arrays of the recurrent "
            "layer, or load the model itself."
        )
    return importable(
        Net(framework or " and ".join(sorted(frameworks)), (*layers.values(),), unsupported)
    )


def importable(net: Net) -> Net:
    """Returns the net, after a check that it has a layer.

    Raises:
      ValueError: If no layer was imported; the message has the reasons.
    """
    if net.layers:
        return net
    reasons = [f"{name}: {why}" for name, why in net.unsupported.items()]
    more = f" And {len(reasons) - 3} more." * (len(reasons) > 3)
    raise ValueError(
        "Expected a recurrent layer that can be imported, but there is none. "
        f"{' '.join(reasons[:3])}{more}"
    )


def _layer(
    group: Group,
    arrays: Mapping[str, np.ndarray],
    options: Options,
    others: Mapping[str, Layer],
) -> Layer:
    convention = _convention(group, options)
    _check_arrays(group, arrays)
    with np.errstate(all="ignore"):  # signalling NaN and numbers beyond float64 are reported later
        arrays = {role: np.asarray(array, np.float64) for role, array in arrays.items()}
    activation = options.activation
    if convention == "torch":
        layout = torch_layout(arrays, activation)
    else:
        layout = keras_layout(arrays, activation, confirmed=options.convention is not None)
    fed_by, note = group.fed_by, layout.note
    if not all(name in others for name in fed_by):
        note = f"{note}; the layer below was not imported".removeprefix("; ")
        fed_by = ()
    _check_inputs(layout, [others[name] for name in fed_by])
    layer = Layer(
        group.name,
        layout.spec,
        layout.input_size,
        layout.hidden_size,
        layout.params,
        layout.words,
        group.direction,
        fed_by,
        note=note,
    )
    if not options.verify:
        return layer
    if convention != "torch":
        return _noted(layer, "not verified: a file of arrays has no model to compare with")
    if not is_torch_installed():
        return _noted(layer, "not verified: PyTorch is not installed")
    kind = layout.spec.partition("(")[0]
    is_reverse = group.direction == "reverse"
    return compared(layer, torch_original(kind, arrays, activation, is_reverse=is_reverse))


def _noted(layer: Layer, note: str) -> Layer:
    return replace(layer, note=f"{layer.note}; {note}".removeprefix("; "))


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


def _check_arrays(group: Group, arrays: Mapping[str, np.ndarray]) -> None:
    missing = [role for role in ("W_x", "W_h") if role not in arrays]
    if missing:
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


def _check_inputs(layout: Layout, below: Sequence[Layer]) -> None:
    sizes = [_output_size(layer) for layer in below]
    if sizes and layout.input_size != sum(sizes):
        raise ValueError(
            f"Expected inputs of size {sum(sizes)}, the outputs of the layer below, got "
            f"{layout.input_size}. Save all directions of a layer together."
        )


def _output_size(layer: Layer) -> int:
    projection = layer.params.get("projection")
    return layer.hidden_size if projection is None else len(projection["W"])
