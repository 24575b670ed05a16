"""The tensors in checkpoints of PyTorch, by their names."""

import re
from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any

from gradflow.interop.arrays.names import find_groups
from gradflow.interop.torch.pickles import Record

DEEPEST = 100
"""Largest depth at which tensors are looked for; crafted files nest a million levels."""

WRAPPERS = re.compile(r"(^|(?<=\.))(_orig_mod|_fsdp_wrapped_module)\.")
"""What torch.compile and FSDP put between the parts of a name."""


def state_dict_of(checkpoint: Any) -> dict[str, Any]:
    """Returns the tensors of the state_dict in a checkpoint, by their names.

    Where several dictionaries in it have recurrent layers, such as those of an encoder and of a
    decoder, the path of its dictionary stands before each name.
    """
    torch = import_module("torch")

    groups: dict[str, dict[str, Any]] = {}
    for (*holder, name), leaf in leaves_of(checkpoint, torch.Tensor):
        groups.setdefault(".".join(holder), {})[name] = leaf
    chosen = {holder: tensors for holder, tensors in groups.items() if find_groups(tensors)}
    if len(chosen) == 1:
        return unwrapped(next(iter(chosen.values())))
    return {
        f"{holder}.{name}".removeprefix("."): leaf
        for holder, tensors in (chosen or groups).items()
        for name, leaf in unwrapped(tensors).items()
    }


def unwrapped(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """Returns values by their names without the prefixes of wrappers, such as ``module.``."""
    found = {WRAPPERS.sub("", name): value for name, value in tensors.items()}
    while found and all(name.startswith("module.") for name in found):
        found = {name.removeprefix("module."): value for name, value in found.items()}
    return found if len(found) == len(tensors) else dict(tensors)


def leaves_of(tree: Any, kind: type) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yields each leaf of a kind in nested dictionaries, lists and modules, in their order.

    A leaf comes with the names on the way to it. A part that occurs several times, or that contains
    itself, is visited once.
    """
    stack: list[tuple[tuple[str, ...], Any]] = [((), tree)]
    visited = set()
    while stack:
        path, node = stack.pop()
        if isinstance(node, kind):
            yield path, node
            continue
        node = node.state if isinstance(node, Record) else node
        if id(node) in visited or len(path) > DEEPEST:
            continue
        visited.add(id(node))
        parts = enumerate(node) if isinstance(node, list | tuple) else ()
        parts = node.items() if isinstance(node, Mapping) else parts
        stack += [((*path, str(key)), part) for key, part in reversed([*parts])]
