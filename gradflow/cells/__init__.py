"""Recurrent cells, one file for each family, and the table from which they are found by name."""

import functools
import importlib
import importlib.util
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from gradflow.cell import Cell
from gradflow.cells.antisymmetric import antisymmetric, gated_antisymmetric
from gradflow.cells.cfn import cfn
from gradflow.cells.clockwork import clockwork
from gradflow.cells.combinators import (
    dropout_of,
    feedback_of,
    masked_of,
    residual_of,
    stack_of,
    zoneout_of,
)
from gradflow.cells.gru import gru, gru_reset_before
from gradflow.cells.indrnn import indrnn
from gradflow.cells.janet import janet
from gradflow.cells.layer_norm import gru_layer_norm, lstm_layer_norm
from gradflow.cells.lem import lem
from gradflow.cells.lipschitz import lipschitz
from gradflow.cells.lru import lru
from gradflow.cells.lstm import LSTMCarry, lstm
from gradflow.cells.mingru import mingru, minlstm
from gradflow.cells.minimal import mgu, minimal_rnn, ugrnn
from gradflow.cells.orthogonal import orthogonal
from gradflow.cells.oscillators import cornn, unicornn
from gradflow.cells.rnn import irnn, rnn
from gradflow.cells.schur import nnrnn
from gradflow.cells.scrn import scrn
from gradflow.cells.unitary import full_unitary, unitary
from gradflow.spec import check_name, check_options, parse_spec

CellFactory = Callable[..., Cell]


def _is_factory(value: Any) -> bool:
    return inspect.isfunction(value) and value.__annotations__.get("return") is Cell


CELLS: dict[str, CellFactory] = {
    name.removesuffix("_of"): value
    for name, value in sorted(globals().items())
    if _is_factory(value)
}
"""All cells by name: the factories that this file imports. A new cell is added by its import."""


def resolve(spec: str) -> CellFactory:
    """Finds the factory (input_size, hidden_size, **options) -> Cell that a spec names.

    Args:
      spec: A name in `CELLS`, with options or without: ``lstm``, ``lstm(forget_bias=2)``; a
        factory in a file: ``path/to/mine.py:factory``; or one in a module: ``pkg.mod:factory``.

    Returns:
      The factory with the options of the spec as defaults.

    Raises:
      ValueError: If there is no such cell, file, module or factory, or the factory does not
        take an option given.
    """
    name, options = parse_spec(spec)
    if ":" in name:
        factory = _load(*name.rsplit(":", 1))
    else:
        hint = "A cell of your own is path/to/file.py:factory or package.module:factory."
        check_name("cell", name, CELLS, hint=hint)
        factory = CELLS[name]
    check_options("cell", name, factory, options, skip=2)  # after input_size and hidden_size

    def make(input_size: int, hidden_size: int, **more: Any) -> Cell:
        return factory(input_size, hidden_size, **{**options, **more})

    make.__name__ = spec
    functools.update_wrapper(make, factory, assigned=("__doc__",))
    return make


def _load(place: str, attribute: str) -> CellFactory:
    if place.endswith(".py"):
        module = _load_file(Path(place))
    else:
        try:
            module = importlib.import_module(place)
        except ModuleNotFoundError as error:
            raise ValueError(
                f"Expected the cell {place}:{attribute} in an importable module, got "
                f"{error.name!r}, which cannot be found. Check its name and PYTHONPATH."
            ) from None
    factory = getattr(module, attribute, None)
    if not callable(factory):
        found = [n for n, v in vars(module).items() if callable(v) and not n.startswith("_")]
        raise ValueError(
            f"Expected the name of a factory in {place}, got {attribute!r}. "
            f"Choose one of its callables: {', '.join(found)}."
        )
    return cast(CellFactory, factory)


def _load_file(path: Path):
    if not path.is_file():
        raise ValueError(
            f"Expected the file of a cell, got {str(path)!r}, which does not exist. "
            "Give an absolute path or one relative to the current directory."
        )
    module_spec = importlib.util.spec_from_file_location(path.stem, path)
    assert module_spec is not None and module_spec.loader is not None  # the suffix is .py
    module = importlib.util.module_from_spec(module_spec)
    module_spec.loader.exec_module(module)
    return module
