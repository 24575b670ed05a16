"""The cells of the field, one file a family, and how a cell is found by name."""

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
    stacked,
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
from gradflow.spec import parse_spec, unknown_name

CellFactory = Callable[..., Cell]

CELLS: dict[str, CellFactory] = {
    "antisymmetric": antisymmetric,
    "cfn": cfn,
    "clockwork": clockwork,
    "cornn": cornn,
    "dropout": dropout_of,
    "feedback": feedback_of,
    "full_unitary": full_unitary,
    "gated_antisymmetric": gated_antisymmetric,
    "gru": gru,
    "gru_layer_norm": gru_layer_norm,
    "gru_reset_before": gru_reset_before,
    "indrnn": indrnn,
    "irnn": irnn,
    "janet": janet,
    "lem": lem,
    "lipschitz": lipschitz,
    "lru": lru,
    "lstm": lstm,
    "lstm_layer_norm": lstm_layer_norm,
    "masked": masked_of,
    "mgu": mgu,
    "mingru": mingru,
    "minimal_rnn": minimal_rnn,
    "minlstm": minlstm,
    "nnrnn": nnrnn,
    "orthogonal": orthogonal,
    "residual": residual_of,
    "rnn": rnn,
    "scrn": scrn,
    "stack": stacked,
    "ugrnn": ugrnn,
    "unicornn": unicornn,
    "unitary": unitary,
    "zoneout": zoneout_of,
}

__all__ = [
    "CELLS",
    "CellFactory",
    "LSTMCarry",
    "antisymmetric",
    "cfn",
    "clockwork",
    "cornn",
    "dropout_of",
    "feedback_of",
    "full_unitary",
    "gated_antisymmetric",
    "gru",
    "gru_layer_norm",
    "gru_reset_before",
    "indrnn",
    "irnn",
    "janet",
    "lem",
    "lipschitz",
    "lru",
    "lstm",
    "lstm_layer_norm",
    "masked_of",
    "mgu",
    "mingru",
    "minimal_rnn",
    "minlstm",
    "nnrnn",
    "orthogonal",
    "residual_of",
    "resolve",
    "rnn",
    "scrn",
    "stacked",
    "ugrnn",
    "unicornn",
    "unitary",
    "zoneout_of",
]


def resolve(spec: str) -> CellFactory:
    """Finds the factory (input_size, hidden_size, **options) -> Cell that a spec names.

    Args:
      spec: A name in `CELLS`, with options or without: ``lstm``, ``lstm(forget_bias=2)``; a
        factory in a file: ``path/to/mine.py:factory``; or one in a module: ``pkg.mod:factory``.

    Returns:
      The factory, which gives the spec's options unless it is called with others.

    Raises:
      ValueError: If there is no such cell, file, module or factory, or the factory does not
        take an option given.
    """
    name, options = parse_spec(spec)
    if ":" in name:
        factory = _load(*name.rsplit(":", 1))
    elif name in CELLS:
        factory = CELLS[name]
    else:
        raise ValueError(
            unknown_name("cell", name, CELLS)
            + " One of your own is path/to/file.py:factory or package.module:factory."
        )
    check_options(factory, name, options)

    def make(input_size: int, hidden_size: int, **more: Any) -> Cell:
        return factory(input_size, hidden_size, **{**options, **more})

    make.__name__ = spec
    functools.update_wrapper(make, factory, assigned=("__doc__",))
    return make


def check_options(factory: CellFactory, name: str, options: dict[str, Any]) -> None:
    """Checks that a factory takes the options given.

    Raises:
      ValueError: With the list of those that it takes.
    """
    parameters = inspect.signature(factory).parameters.values()
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return
    taken = [p.name for p in list(parameters)[2:]]
    for option in options:
        if option not in taken:
            raise ValueError(
                f"cell {name!r} has no option {option!r}; it takes {', '.join(taken) or 'none'}"
            )


def _load(place: str, attribute: str) -> CellFactory:
    if place.endswith(".py"):
        module = _load_file(Path(place))
    else:
        try:
            module = importlib.import_module(place)
        except ModuleNotFoundError as error:
            raise ValueError(f"no module {error.name!r} for the cell {place}:{attribute}") from None
    factory = getattr(module, attribute, None)
    if not callable(factory):
        found = [n for n, v in vars(module).items() if callable(v) and not n.startswith("_")]
        raise ValueError(
            f"{place} has no factory {attribute!r}; the callables in it are {', '.join(found)}"
        )
    return cast(CellFactory, factory)


def _load_file(path: Path):
    if not path.is_file():
        raise ValueError(f"there is no file {str(path)!r} for a cell; the path is relative to "
                         f"the current directory")  # fmt: skip
    module_spec = importlib.util.spec_from_file_location(path.stem, path)
    assert module_spec is not None and module_spec.loader is not None  # the suffix is .py
    module = importlib.util.module_from_spec(module_spec)
    module_spec.loader.exec_module(module)
    return module
