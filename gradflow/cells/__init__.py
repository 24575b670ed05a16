"""Recurrent cells, one file for each family, and the table from which they are found by name."""

import functools
import inspect
from collections.abc import Callable
from typing import Any

from gradflow.cell import Cell
from gradflow.cells.additive import atr, ran
from gradflow.cells.antisymmetric import antisymmetric, gated_antisymmetric
from gradflow.cells.bistable import brc, nbrc
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
from gradflow.cells.convolutional import conv_gru, conv_lstm
from gradflow.cells.delta_rule import deltanet, gated_deltanet
from gradflow.cells.fast import fastgrnn, fastrnn
from gradflow.cells.griffin import rg_lru
from gradflow.cells.gru import gru, gru_reset_before
from gradflow.cells.highway import rhn
from gradflow.cells.indrnn import indrnn
from gradflow.cells.janet import janet
from gradflow.cells.layer_norm import gru_layer_norm, lstm_layer_norm
from gradflow.cells.lem import lem
from gradflow.cells.ligru import ligru
from gradflow.cells.linear_attention import gla, hgrn2, retnet
from gradflow.cells.lipschitz import lipschitz
from gradflow.cells.loading import load_factory
from gradflow.cells.lru import lru
from gradflow.cells.lstm import LSTMCarry, lstm
from gradflow.cells.lstm_relatives import multiplicative_lstm, nas, residual_lstm
from gradflow.cells.mingru import mingru, minlstm
from gradflow.cells.minimal import mgu, minimal_rnn, ugrnn
from gradflow.cells.mlstm import mlstm
from gradflow.cells.orthogonal import orthogonal
from gradflow.cells.oscillators import cornn, unicornn
from gradflow.cells.rnn import irnn, rnn
from gradflow.cells.rwkv import rwkv7
from gradflow.cells.schur import nnrnn
from gradflow.cells.scrn import scrn
from gradflow.cells.selective import mamba, mamba2
from gradflow.cells.slstm import slstm
from gradflow.cells.star import light_ru, star
from gradflow.cells.state_space import s4d, s5
from gradflow.cells.ttt import ttt_linear
from gradflow.cells.unitary import full_unitary, unitary
from gradflow.checks import shorten
from gradflow.spec import check_name, check_options, parse_spec, split_specs

CellFactory = Callable[..., Cell]


def _is_factory(value: Any) -> bool:
    return inspect.isfunction(value) and value.__annotations__.get("return") is Cell


CELLS: dict[str, CellFactory] = {
    name.removesuffix("_of"): value
    for name, value in sorted(globals().items())
    if _is_factory(value)
}
"""All cells by name: the factories that this file imports. A new cell is added by its import."""


def resolve(spec: str, *, allow_code: bool = True) -> CellFactory:
    """Finds the factory (input_size, hidden_size, **options) -> Cell that a spec names.

    Args:
      spec: A name in `CELLS`, with options or without: ``lstm``, ``lstm(forget_bias=2)``; a
        factory in a file: ``path/to/mine.py:factory``; or one in a module: ``pkg.mod:factory``.
      allow_code: Whether the spec may name a file or a module, which is then executed. False is
        for a spec that was read from a file: only the cells of `CELLS` are found, also inside of
        others, as in ``stack(cells='lstm,gru')``.

    Returns:
      The factory with the options of the spec as defaults.

    Raises:
      ValueError: If there is no such cell, file, module or factory, the factory does not take an
        option given, or the spec names a file or a module and allow_code is False.
    """
    if not allow_code and _names_code(spec):
        raise ValueError(
            f"Expected only cells of this package, because the name was read from a file, got "
            f"{shorten(repr(spec))}, which names code that would be executed. If you trust "
            "this code, give the same cell yourself, for example by --cell."
        )
    name, options = parse_spec(spec)
    if ":" in name:
        factory = load_factory(*name.rsplit(":", 1))
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


def _names_code(spec: str) -> bool:
    """Whether a spec, or one within its options, names a file or a module.

    A cell inside another is a string in its options, possibly one of several; a file or a module
    has a colon in its name.
    """
    name, options = parse_spec(spec)
    strings = [text for value in options.values() for text in _strings(value)]
    return ":" in name or any(_names_code(one) for text in strings for one in split_specs(text))


def _strings(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        value = [*value, *value.values()]
    return [s for v in value for s in _strings(v)] if isinstance(value, list | tuple | set) else []
