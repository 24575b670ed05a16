"""Recurrent layers among named arrays, found by the names that frameworks give them."""

import difflib
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from gradflow.checks import shorten
from gradflow.interop.net import Direction

TORCH = {
    "weight_ih": "W_x",
    "weight_hh": "W_h",
    "bias_ih": "b_x",
    "bias_hh": "b_h",
    "weight_hr": "W_hr",
}
"""PyTorch's names, and the names here, of the arrays of a layer."""

KERAS = {"kernel": "W_x", "recurrent_kernel": "W_h", "bias": "b"}
"""Keras's names, and the names here, of the arrays of a layer."""

OTHER = {
    alias: role
    for role, aliases in {
        "W_x": "w_x w_ih w_i w_in wx wih kernel_x input_kernel weight_x w",
        "W_h": "w_h w_hh w_rec wh whh kernel_h recurrent_weight weight_h u r",
        "b": "b bias",
        "b_x": "b_x b_ih b_i bx bih bias_x",
        "b_h": "b_h b_hh bh bhh bias_h",
    }.items()
    for alias in aliases.split()
}
"""Names that say what an array is, but not in which layout; in lower case."""

_TORCH_NAME = re.compile(
    rf"(?P<prefix>|.*[./])(?P<role>{'|'.join(TORCH)})(?:_l(?P<depth>\d{{1,4}})(?P<back>_reverse)?)?"
)
_KERAS_NAME = re.compile(rf"(?P<prefix>|.*[./])(?P<role>{'|'.join(KERAS)})(?::0)?")
_OTHER_NAME = re.compile(r"(?P<prefix>|.*[./])(?P<role>\w+)(?::0)?")


class Group(NamedTuple):
    """The arrays of one layer in one direction.

    Attributes:
      name: The name of the layer.
      convention: The framework that gives such names, ``torch`` or ``keras``; None for others.
      roles: The names of the arrays by what they are: W_x, W_h, b, b_x, b_h, W_hr.
      direction: Whether it reads the sequences forwards or in reverse.
      fed_by: The names of the layers whose outputs it gets.
      is_cell: Whether it is a cell that its user calls at each step.
    """

    name: str
    convention: str | None
    roles: Mapping[str, str]
    direction: Direction = "forward"
    fed_by: tuple[str, ...] = ()
    is_cell: bool = False


def find_groups(names: Iterable[str]) -> list[Group]:
    """Returns the recurrent layers among arrays of these names, in the order of the names.

    The layers of one PyTorch module are in the order of computation. A group has W_h at least: a
    kernel and a bias without a recurrent matrix are another kind of layer.
    """
    torch: dict[str, dict[tuple[int, str], dict[str, str]]] = defaultdict(lambda: defaultdict(dict))
    keras: dict[str, dict[str, str]] = defaultdict(dict)
    other: dict[str, dict[str, str]] = defaultdict(dict)
    order: dict[str, None] = {}
    for name in names:
        if match := _TORCH_NAME.fullmatch(name):
            place = (-1 if match["depth"] is None else int(match["depth"]), match["back"] or "")
            torch[match["prefix"]][place][TORCH[match["role"]]] = name
        elif match := _KERAS_NAME.fullmatch(name):
            keras[match["prefix"]][KERAS[match["role"]]] = name
        elif (match := _OTHER_NAME.fullmatch(name)) and match["role"].lower() in OTHER:
            other[match["prefix"]][OTHER[match["role"].lower()]] = name
        if match:
            order[match["prefix"]] = None
    found: list[Group] = []
    for prefix in order:
        if "b" in keras[prefix] and (-1, "") in torch[prefix]:  # Equinox has one bias
            torch[prefix][-1, ""]["b"] = keras[prefix]["b"]
        found += _torch_groups(prefix, torch[prefix])
        if "W_h" in keras[prefix]:
            found.append(_keras_group(prefix, keras[prefix]))
        elif {"W_x", "W_h"} <= set(other[prefix]):
            found.append(Group(_layer_name(prefix, "layer"), None, other[prefix]))
    return found


def _torch_groups(
    prefix: str, layers: Mapping[tuple[int, str], Mapping[str, str]]
) -> Iterable[Group]:
    """The layers of one module; the forward direction comes before the reverse one."""
    path = _layer_name(prefix, "")
    names = {
        (depth, back): f"{path}.l{depth}{back}".removeprefix(".")
        for depth, back in sorted(layers)
        if depth >= 0
    }
    names |= {place: path or "cell" for place in layers if place[0] < 0}
    for (depth, back), name in names.items():
        below = tuple(names[d, b] for d, b in names if d == depth - 1 and d >= 0)
        direction: Direction = "reverse" if back else "forward"
        yield Group(name, "torch", layers[depth, back], direction, below, depth < 0)


def _keras_group(prefix: str, roles: Mapping[str, str]) -> Group:
    is_reverse = re.search(r"(^|[./])backward_", prefix)
    name = _layer_name(prefix, "layer")
    return Group(name, "keras", roles, "reverse" if is_reverse else "forward")


def _layer_name(prefix: str, default: str) -> str:
    return prefix.strip("./").replace("/", ".") or default


def describe(names: Sequence[str]) -> str:
    """Returns which names a file has, and the one nearest to a known name, for an error."""
    shown = shorten(", ".join(names[:8])) + ", and more" * (len(names) > 8)
    known = [*TORCH, *KERAS]
    ratios = {
        name: max(difflib.SequenceMatcher(None, end, one).ratio() for one in known)
        for name in names[:2000]
        if (end := re.split(r"[./]", name)[-1][:60])
    }
    nearest = max(ratios, key=lambda name: ratios[name], default="")
    if not names or ratios.get(nearest, 0) < 0.5:
        return shown or "no arrays"
    return f"{shown} (the nearest is {shorten(nearest)})"
