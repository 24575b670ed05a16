"""Default initialisations of other frameworks, by name.

A preset reproduces a distribution, not the numbers: matrices and biases have the distribution of
the framework's cell at initialisation, sampled from gradflow's keys in gradflow's layout.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gradflow.cell import Cell, InitFn, Key, Params, param_shapes
from gradflow.cells.gru import gru, gru_reset_before
from gradflow.cells.lstm import lstm
from gradflow.cells.parts import init_matrices
from gradflow.cells.rnn import rnn
from gradflow.initializers import Initializer, glorot, lecun, orthogonal
from gradflow.spec import check_name

KINDS = {"gru": gru, "gru_reset_before": gru_reset_before, "lstm": lstm, "rnn": rnn}
"""The cells that have presets, by name."""

Matrices = tuple[Float[Array, "gates hidden input"], Float[Array, "gates hidden hidden"]]
MatricesInit = Callable[[Key, int, int, int], Matrices]
"""(key, number of gates, input size, hidden size) -> W_x and W_h of all gates."""


class Preset(NamedTuple):
    """The initialisation of one kind of cell in one framework.

    Attributes:
      matrices: Initialises the matrices of all gates.
      num_biases: Number of biases U(±1/√hidden) of a gate, which are added; 0 for a zero bias.
        If input and hidden bias are separate parameters, as in the GRU's n, each is one.
      forget_bias: Constant that is added to b^f.
    """

    matrices: MatricesInit
    num_biases: int = 0
    forget_bias: float = 0.0


def _separate(
    key: Key, gates: int, input_size: int, hidden_size: int, *, W_x: Initializer, W_h: Initializer
) -> Matrices:
    """Initialises every gate's matrices separately."""
    sizes = {"W_x": (W_x, input_size), "W_h": (W_h, hidden_size)}
    matrices = init_matrices(
        key,
        {f"{n}{g}": (sizes[n][0], (hidden_size, sizes[n][1])) for n in sizes for g in range(gates)},
    )
    W_x_all, W_h_all = ([matrices[f"{n}{g}"] for g in range(gates)] for n in sizes)
    return jnp.stack(W_x_all), jnp.stack(W_h_all)


def _fused(
    key: Key, gates: int, input_size: int, hidden_size: int, *, W_x: Initializer, W_h: Initializer
) -> Matrices:
    """Initialises one matrix for all gates and cuts it into blocks of rows, one for each gate.

    A block of an orthogonal matrix of this shape is not orthogonal.
    """
    rows = gates * hidden_size
    fused = init_matrices(
        key, {"W_x": (W_x, (rows, input_size)), "W_h": (W_h, (rows, hidden_size))}
    )
    W_x_all, W_h_all = (fused[n].reshape(gates, hidden_size, -1) for n in ("W_x", "W_h"))
    return W_x_all, W_h_all


def _joined(key: Key, gates: int, input_size: int, hidden_size: int) -> Matrices:
    """Initialises one matrix for [x; h] and all gates, as Haiku's LSTM does with its ``Linear``."""
    columns = input_size + hidden_size
    W = init_matrices(key, {"W": (_linear, (gates * hidden_size, columns))})["W"]
    W = W.reshape(gates, hidden_size, columns)
    return W[..., :input_size], W[..., input_size:]


def _uniform(key: Key, shape: Sequence[int], dtype=None) -> Array:
    """Samples U(±1/√hidden), for matrices and biases; the first axis is the hidden one."""
    bound = shape[0] ** -0.5
    return jax.random.uniform(key, shape, dtype or float, -bound, bound)


def _linear(key: Key, shape: tuple[int, int], dtype) -> Array:
    """Initialises weights as Haiku's ``Linear``: N(0, 1/n_in), truncated at 2 standard deviations.

    Unlike LeCun's, it is not rescaled after truncation: its standard deviation is 0.88/√n_in.
    """
    return jax.nn.initializers.truncated_normal(shape[1] ** -0.5)(key, shape, dtype)


_UNIFORM = partial(_separate, W_x=_uniform, W_h=_uniform)
_KERAS = partial(_fused, W_x=glorot(), W_h=orthogonal())
_LINEN = partial(_separate, W_x=lecun(), W_h=orthogonal())
_NNX = partial(_fused, W_x=lecun(), W_h=orthogonal())

PRESETS: dict[str, dict[str, Preset]] = {
    "equinox": {"gru": Preset(_UNIFORM, 1), "lstm": Preset(_UNIFORM, 1)},
    "flax_linen": {"gru": Preset(_LINEN), "lstm": Preset(_LINEN), "rnn": Preset(_LINEN)},
    "flax_nnx": {"gru": Preset(_NNX), "lstm": Preset(_NNX), "rnn": Preset(_NNX)},
    "haiku": {
        "gru_reset_before": Preset(partial(_separate, W_x=lecun(), W_h=lecun())),
        "lstm": Preset(_joined, forget_bias=1.0),
        "rnn": Preset(partial(_separate, W_x=_linear, W_h=_linear)),
    },
    "keras": {
        "gru": Preset(_KERAS),
        "gru_reset_before": Preset(_KERAS),
        "lstm": Preset(_KERAS, forget_bias=1.0),
        "rnn": Preset(_KERAS),
    },
    "torch": {"gru": Preset(_UNIFORM, 2), "lstm": Preset(_UNIFORM, 2), "rnn": Preset(_UNIFORM, 2)},
}


def with_preset(cell: Cell, name: str) -> Cell:
    """Replaces the initialisation of a cell by the default of a framework for that kind of cell.

    With n = hidden_size and U(n) the uniform distribution on ±1/√n; "fused" is one matrix for all
    gates, of which each gate has a block of rows::

        name         W_x                    W_h                     biases
        torch        U(n)                   U(n)                    U(n) + U(n); two for GRU's n
        equinox      U(n)                   U(n)                    U(n)
        keras        Glorot, fused          orthogonal, fused       0; b^f = 1
        flax_linen   LeCun                  orthogonal              0
        flax_nnx     LeCun                  orthogonal, fused       0
        haiku LSTM   truncated normal, standard deviation 0.88/√(input + n), both; 0; b^f = 1
        haiku RNN    truncated normal, standard deviation 0.88/√columns, both; 0
        haiku GRU    LeCun                  LeCun                   0

    ``flax_nnx`` is ``nnx.OptimizedLSTMCell``; ``nnx.LSTMCell`` initialises as ``flax_linen``.
    ``nnx.GRUCell`` has no hidden bias b_h, so b_h is 0 at initialisation. Haiku's GRU applies the
    reset gate before the product, with the opposite sign of z, which does not change the
    distribution. The b^f = 1 of Haiku's LSTM is added in its step, and is a parameter here.
    Equinox has no vanilla RNN.

    Args:
      cell: An `rnn`, `lstm`, `gru` or `gru_reset_before`, or a cell with the same parameters.
      name: A name in `PRESETS`.

    Raises:
      ValueError: For an unknown preset, or a cell that the framework does not have.

    Source: the libraries' sources: torch.nn.modules.rnn, equinox.nn, keras.layers.rnn,
    flax.linen.recurrent, flax.nnx.nn.recurrent, haiku.
    """
    check_name("preset", name, PRESETS)
    params = param_shapes(cell)
    kind, *sizes = _recognise(params)
    if kind not in PRESETS[name]:
        got = kind or f"a cell with parameters {jax.tree.map(jnp.shape, params)}"
        raise ValueError(
            f"Expected one of {', '.join(PRESETS[name])} for the preset {name!r}, got {got}. Use "
            "another preset, or an initialiser such as recurrent_init='orthogonal'."
        )
    return cell._replace(init=_init(PRESETS[name][kind], KINDS[kind](*sizes).init))


def _recognise(params: Params) -> tuple[str, int, int]:
    """Returns the kind of cell with such parameters, "" if there is none, and its sizes."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    for path, leaf in leaves:
        if jax.tree_util.keystr(path[-1:], simple=True) == "W_x" and leaf.ndim == 2:
            hidden_size, input_size = leaf.shape
            for kind, factory in KINDS.items():
                known = param_shapes(factory(input_size, hidden_size))
                if jax.tree.map(jnp.shape, known) == jax.tree.map(jnp.shape, params):
                    return kind, input_size, hidden_size
    return "", 0, 0


def _init(preset: Preset, layout: InitFn) -> InitFn:
    """Makes an init function with the layout of another one, which is not executed."""

    def init(key: Key) -> Params:
        shapes = jax.eval_shape(layout, key)
        gates = {"": shapes} if "W_h" in shapes else shapes
        hidden_size, input_size = next(iter(gates.values()))["W_x"].shape
        k_matrices, *keys = jax.random.split(key, 1 + len(gates))
        W_x, W_h = preset.matrices(k_matrices, len(gates), input_size, hidden_size)
        params = {
            gate: {"W_x": W_x[g], "W_h": W_h[g], **_biases(preset, keys[g], gate, gates[gate])}
            for g, gate in enumerate(gates)
        }
        return params.get("", params)

    return init


def _biases(preset: Preset, key: Key, gate: str, shapes: Params) -> Params:
    names = sorted(set(shapes) - {"W_x", "W_h"})
    copies = min(preset.num_biases, 1) if len(names) > 1 else preset.num_biases
    keys = jax.random.split(key, (len(names), max(copies, 1)))
    biases = {
        name: sum(
            (_uniform(k, shapes[name].shape) for k in row[:copies]), jnp.zeros(shapes[name].shape)
        )
        for name, row in zip(names, keys, strict=True)
    }
    return biases | {"b": biases["b"] + preset.forget_bias * (gate == "f")}
