"""What a framework would have drawn: the initial laws of the known libraries, by name.

A preset is a law, not a copy: the matrices and biases have the distribution that the library's
cell has at birth, from gradflow's keys and in gradflow's layout.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gradflow.cell import Cell, InitFn, Key, Params
from gradflow.cells.gru import gru, gru_reset_before
from gradflow.cells.lstm import lstm
from gradflow.cells.parts import draw_matrices
from gradflow.cells.rnn import rnn
from gradflow.initializers import Initializer, glorot, lecun, orthogonal
from gradflow.spec import check_name

KINDS = {"gru": gru, "gru_reset_before": gru_reset_before, "lstm": lstm, "rnn": rnn}
"""The cells that the presets know, each with the layout of its parameters."""

Matrices = tuple[Float[Array, "gates hidden input"], Float[Array, "gates hidden hidden"]]
Drawing = Callable[[Key, int, int, int], Matrices]
"""(key, gates, input, hidden) -> all gates' W_x and W_h."""


class Law(NamedTuple):
    """How one framework starts one kind of cell.

    Attributes:
      draw: All gates' matrices.
      num_biases: How many biases U(±1/√hidden) a gate has, which are added; with none, it is 0.
        Where input and hidden bias are told apart, as in the GRU's n, each is one.
      forget_bias: What is added to b^f.
    """

    draw: Drawing
    num_biases: int = 0
    forget_bias: float = 0.0


def _separate(
    key: Key, gates: int, input_size: int, hidden_size: int, *, W_x: Initializer, W_h: Initializer
) -> Matrices:
    """Every gate's matrices by themselves."""
    sizes = {"W_x": (W_x, input_size), "W_h": (W_h, hidden_size)}
    drawn = draw_matrices(
        key,
        {f"{n}{g}": (sizes[n][0], (hidden_size, sizes[n][1])) for n in sizes for g in range(gates)},
    )
    W_x_all, W_h_all = ([drawn[f"{n}{g}"] for g in range(gates)] for n in sizes)
    return jnp.stack(W_x_all), jnp.stack(W_h_all)


def _fused(
    key: Key, gates: int, input_size: int, hidden_size: int, *, W_x: Initializer, W_h: Initializer
) -> Matrices:
    """One matrix for all gates, cut into the gates' blocks: an orthogonal one has no such block."""
    rows = gates * hidden_size
    drawn = draw_matrices(
        key, {"W_x": (W_x, (rows, input_size)), "W_h": (W_h, (rows, hidden_size))}
    )
    W_x_all, W_h_all = (drawn[n].reshape(gates, hidden_size, -1) for n in ("W_x", "W_h"))
    return W_x_all, W_h_all


def _joined(key: Key, gates: int, input_size: int, hidden_size: int) -> Matrices:
    """One matrix on [x; h] as Haiku's ``Linear`` draws it: truncated and not rescaled after."""
    columns = input_size + hidden_size
    init = jax.nn.initializers.truncated_normal(columns**-0.5)
    W = draw_matrices(key, {"W": (init, (gates * hidden_size, columns))})["W"]
    W = W.reshape(gates, hidden_size, columns)
    return W[..., :input_size], W[..., input_size:]


def _uniform(key: Key, shape: Sequence[int], dtype=None) -> Array:
    """U(±1/√hidden), for matrices and biases alike; the first axis is the hidden one."""
    bound = shape[0] ** -0.5
    return jax.random.uniform(key, shape, dtype or float, -bound, bound)


def _linear(key: Key, shape: tuple[int, int], dtype) -> Array:
    """The weights of Haiku's ``Linear``: N(0, 1/n_in) truncated at two of its deviations."""
    return jax.nn.initializers.truncated_normal(shape[1] ** -0.5)(key, shape, dtype)


_UNIFORM = partial(_separate, W_x=_uniform, W_h=_uniform)
_KERAS = partial(_fused, W_x=glorot(), W_h=orthogonal())
_LINEN = partial(_separate, W_x=lecun(), W_h=orthogonal())
_NNX = partial(_fused, W_x=lecun(), W_h=orthogonal())

PRESETS: dict[str, dict[str, Law]] = {
    "equinox": {"gru": Law(_UNIFORM, 1), "lstm": Law(_UNIFORM, 1)},
    "flax_linen": {"gru": Law(_LINEN), "lstm": Law(_LINEN), "rnn": Law(_LINEN)},
    "flax_nnx": {"gru": Law(_NNX), "lstm": Law(_NNX), "rnn": Law(_NNX)},
    "haiku": {
        "gru_reset_before": Law(partial(_separate, W_x=lecun(), W_h=lecun())),
        "lstm": Law(_joined, forget_bias=1.0),
        "rnn": Law(partial(_separate, W_x=_linear, W_h=_linear)),
    },
    "keras": {
        "gru": Law(_KERAS),
        "gru_reset_before": Law(_KERAS),
        "lstm": Law(_KERAS, forget_bias=1.0),
        "rnn": Law(_KERAS),
    },
    "torch": {"gru": Law(_UNIFORM, 2), "lstm": Law(_UNIFORM, 2), "rnn": Law(_UNIFORM, 2)},
}


def with_preset(cell: Cell, name: str) -> Cell:
    """The cell with its parameters drawn as a framework draws those of its own such cell.

    With n = hidden_size and U(n) the uniform law on ±1/√n; "fused" is one matrix for all gates,
    of which each gate has a block of rows::

        name         W_x                    W_h                     biases
        torch        U(n)                   U(n)                    U(n) + U(n); two for GRU's n
        equinox      U(n)                   U(n)                    U(n)
        keras        Glorot, fused          orthogonal, fused       0; b^f = 1
        flax_linen   LeCun                  orthogonal              0
        flax_nnx     LeCun                  orthogonal, fused       0
        haiku LSTM   truncated normal of deviation 0.88/√(input + n), both; 0; b^f = 1
        haiku RNN    truncated normal of deviation 0.88/√columns, both; 0
        haiku GRU    LeCun                  LeCun                   0

    ``flax_nnx`` is its ``OptimizedLSTMCell``; ``nnx.LSTMCell`` draws as ``flax_linen``.
    ``nnx.GRUCell`` has no hidden bias b_h: here it starts at 0, and there it stays so.
    Haiku's GRU is the one that resets before its product, of opposite sign in z, which changes
    nothing in law; its b^f = 1 is added in the step there and is a parameter here. Equinox
    has no vanilla RNN.

    Args:
      cell: An `rnn`, `lstm`, `gru` or `gru_reset_before`, or a cell of the same parameters.
      name: One of `PRESETS`.

    Raises:
      ValueError: For an unknown preset, or a cell that the framework does not have.

    Source: the libraries' sources: torch.nn.modules.rnn, equinox.nn, keras.layers.rnn,
    flax.linen.recurrent, flax.nnx.nn.recurrent, haiku.
    """
    check_name("preset", name, PRESETS)
    key = jax.eval_shape(jax.random.key, 0)
    params = jax.eval_shape(cell.init, key)
    kind, *sizes = _recognise(params)
    if kind not in PRESETS[name]:
        came = kind or f"a cell of parameters {jax.tree.map(jnp.shape, params)}"
        raise ValueError(
            f"the preset {name!r} is of {', '.join(PRESETS[name])}, got {came}: take another "
            "preset, or an initialiser such as recurrent_init='orthogonal'"
        )
    return cell._replace(init=_init(PRESETS[name][kind], KINDS[kind](*sizes).init))


def _recognise(params: Params) -> tuple[str, int, int]:
    """The kind of cell that has such parameters, "" if none has, and its sizes."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    for path, leaf in leaves:
        if jax.tree_util.keystr(path[-1:], simple=True) == "W_x" and leaf.ndim == 2:
            hidden_size, input_size = leaf.shape
            for kind, factory in KINDS.items():
                init = factory(input_size, hidden_size).init
                theirs = jax.eval_shape(init, jax.eval_shape(jax.random.key, 0))
                if jax.tree.map(jnp.shape, theirs) == jax.tree.map(jnp.shape, params):
                    return kind, input_size, hidden_size
    return "", 0, 0


def _init(law: Law, layout: InitFn) -> InitFn:
    """Draws by the law in the layout of another init function, which is not run."""

    def init(key: Key) -> Params:
        shapes = jax.eval_shape(layout, key)
        gates = {"": shapes} if "W_h" in shapes else shapes
        hidden_size, input_size = next(iter(gates.values()))["W_x"].shape
        k_matrices, *keys = jax.random.split(key, 1 + len(gates))
        W_x, W_h = law.draw(k_matrices, len(gates), input_size, hidden_size)
        params = {
            gate: {"W_x": W_x[g], "W_h": W_h[g], **_biases(law, keys[g], gate, gates[gate])}
            for g, gate in enumerate(gates)
        }
        return params.get("", params)

    return init


def _biases(law: Law, key: Key, gate: str, shapes: Params) -> Params:
    names = sorted(set(shapes) - {"W_x", "W_h"})
    copies = min(law.num_biases, 1) if len(names) > 1 else law.num_biases
    keys = jax.random.split(key, (len(names), max(copies, 1)))
    biases = {
        name: sum(
            (_uniform(k, shapes[name].shape) for k in row[:copies]), jnp.zeros(shapes[name].shape)
        )
        for name, row in zip(names, keys, strict=True)
    }
    return biases | {"b": biases["b"] + law.forget_bias * (gate == "f")}
