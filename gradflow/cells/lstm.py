"""The long short-term memory (LSTM) with a forget gate, and its common variants."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gradflow.cell import Cell, Key, Params
from gradflow.cells.activations import clipped
from gradflow.cells.parts import RecurrentInit, affine, init_gates
from gradflow.checks import check_flag, check_integer
from gradflow.initializers import BiasSpec, InitSpec, lecun

Init = Callable[[Key], Params]


class LSTMCarry(NamedTuple):
    """The two states of an LSTM: the hidden state h, or its projection, and the cell state c."""

    h: Float[Array, " output"]
    c: Float[Array, " hidden"]


def lstm(
    input_size: int,
    hidden_size: int,
    *,
    forget_bias: BiasSpec | None = None,
    input_bias: BiasSpec | None = None,
    peephole: bool | str = False,
    coupled: bool = False,
    forget_gate: bool = True,
    projection_size: int | None = None,
    activation: str = "tanh",
    output_activation: str | None = None,
    gate_activation: str = "sigmoid",
    clip: float | None = None,
    recurrent_init: RecurrentInit = "orthogonal",
    input_init: InitSpec = "lecun",
) -> Cell:
    """An LSTM with a forget gate; options add peepholes, couple gates or remove the forget gate.

    With σ the logistic function and a_t^q = W_x^q x_t + W_h^q h_{t-1} + b^q for each gate q::

        i_t = σ(a_t^i)    f_t = σ(a_t^f)    o_t = σ(a_t^o)    g_t = tanh(a_t^g)
        c_t = f_t ∘ c_{t-1} + i_t ∘ g_t
        h_t = o_t ∘ tanh(c_t)

    Args:
      forget_bias: Initial value of b^f; the step adds nothing to it. By default 1, as in Keras;
        Flax uses 0 and PyTorch U(±1/√hidden). ``"chrono(max_lag=100)"`` samples b^f for memories
        of up to 100 steps and also sets b^i = -b^f; all other values set b^f only.
      input_bias: Initial value of b^i, by default 0, or -b^f with chrono. A negative value keeps
        the input gate closed at first, as in the paper of 1997. b^o and b^g are initialised at 0.
      peephole: Whether the gates have peephole connections, or which gates, such as ``"if"``. A
        connection adds p^q ∘ c to a_t^q, with c_{t-1} for i and f and c_t for o. p^q is a vector
        for each gate, initialised from N(0, 0.1²), as in Lasagne.
      coupled: Whether i_t = 1 - f_t. The input gate then has no parameters.
      forget_gate: False gives the LSTM of 1997: f_t = 1, and no parameters for f.
      projection_size: Size of h where it is a projection, h_t = W (o_t ∘ tanh(c_t)). The parameter
        W is then ``params["projection"]["W"]``, and hidden_size is the size of c alone.
      activation: The function in place of tanh, in g.
      output_activation: The function in place of tanh in h, by default that of g.
      gate_activation: The function in place of σ.
      clip: Largest absolute value of each a_t^q, as in ONNX; by default there is none.
      recurrent_init: Initialiser of each gate's W_h separately, as in Flax Linen. Keras
        initialises one orthogonal matrix for all four gates.
      input_init: Initialiser of each gate's W_x: LeCun's, as in Flax; Keras uses Glorot's.

    Raises:
      TypeError: If an option has another type.
      ValueError: If the options contradict each other, or a peephole is at a gate that does not
        exist.

    Source: Hochreiter & Schmidhuber 1997; Gers, Schmidhuber, Cummins 2000 (forget gate);
    Gers, Schraudolph, Schmidhuber 2002 (peepholes); Jozefowicz, Zaremba, Sutskever 2015 (forget
    bias 1); Greff et al. 2015, arXiv:1503.04069 (coupled gates, there CIFG); Tallec & Ollivier
    2018, arXiv:1804.11188 (chrono); Sak, Senior, Beaufays 2014, arXiv:1402.1128 (projection).
    """
    _check_options(coupled, forget_gate, forget_bias, input_bias)
    names = "fgo" if coupled else "ifgo" if forget_gate else "igo"
    peepholes = _peephole_gates(peephole, names)
    biases = {"f": 1.0 if forget_bias is None else forget_bias}
    init = init_gates(
        names,
        input_size,
        hidden_size,
        recurrent_init=recurrent_init,
        input_init=input_init,
        biases=biases | ({} if input_bias is None else {"i": input_bias}),
        recurrent_size=projection_size,
    )
    init = _with_projection(
        _with_peepholes(init, peepholes, hidden_size), projection_size, hidden_size
    )
    advance = _equations(
        names, peepholes, clipped(gate_activation, clip), clipped(activation, clip)
    )
    squash = clipped(activation if output_activation is None else output_activation)

    def step(params: Params, carry: LSTMCarry, x: Array) -> tuple[LSTMCarry, Array]:
        gates, c = advance(params, carry, x)
        h = gates["o"] * squash(c)
        if projection_size is not None:
            h = params["projection"]["W"] @ h
        return LSTMCarry(h, c), h

    return Cell(
        init=init,
        step=step,
        initial_carry=lambda: LSTMCarry(
            jnp.zeros(projection_size or hidden_size), jnp.zeros(hidden_size)
        ),
        hidden=lambda carry: carry.h,
        gates=lambda params, carry, x: advance(params, carry, x)[0],
    )


def _check_options(coupled: bool, forget_gate: bool, forget_bias: Any, input_bias: Any) -> None:
    check_flag("coupled", coupled)
    check_flag("forget_gate", forget_gate)
    if not forget_gate and (coupled or forget_bias is not None):
        raise ValueError(
            "Expected neither coupled nor forget_bias with forget_gate=False, got "
            f"coupled={coupled} and forget_bias={forget_bias}. Remove them or forget_gate=False."
        )
    if coupled and input_bias is not None:
        raise ValueError(
            f"Expected no input_bias with coupled=True, where i_t = 1 - f_t, got {input_bias}. "
            "Remove input_bias, or set forget_bias instead."
        )


def _peephole_gates(peephole: bool | str, names: str) -> str:
    possible = names.replace("g", "")
    if not isinstance(peephole, str):
        check_flag("peephole", peephole)
        return possible if peephole else ""
    for gate in peephole:
        if gate not in possible:
            raise ValueError(
                f"Expected peephole gates among {possible!r} with these options, got {gate!r} in "
                f"peephole={peephole!r}. Remove {gate!r}, or set peephole=True for all gates."
            )
    return peephole


def _equations(
    names: str, peepholes: str, sigma: Callable[[Array], Array], phi: Callable[[Array], Array]
) -> Callable[..., tuple[dict[str, Array], Array]]:
    """Makes the function that computes the gates and c_t, for gates with parameters `names`."""

    def sigmoid(params: Params, a: dict[str, Array], gate: str, c: Array) -> Array:
        return sigma(a[gate] + params[gate]["p"] * c if gate in peepholes else a[gate])

    def advance(params: Params, carry: LSTMCarry, x: Array) -> tuple[dict[str, Array], Array]:
        a = {gate: affine(params[gate], carry.h, x) for gate in names}
        f = sigmoid(params, a, "f", carry.c) if "f" in names else jnp.ones_like(carry.c)
        i = sigmoid(params, a, "i", carry.c) if "i" in names else 1 - f
        g = phi(a["g"])
        c = f * carry.c + i * g
        o = sigmoid(params, a, "o", c)
        return {"i": i, "f": f, "g": g, "o": o}, c

    return advance


def _with_projection(init: Init, projection_size: int | None, hidden_size: int) -> Init:
    if projection_size is None:
        return init
    check_integer("projection_size", projection_size, 1)

    def init_with_projection(key: Key) -> Params:
        # The gates use the keys that split(key) gives; fold_in gives one independent of them.
        W = lecun()(jax.random.fold_in(key, 100), (projection_size, hidden_size), float)
        return init(key) | {"projection": {"W": W}}

    return init_with_projection


def _with_peepholes(init: Init, peepholes: str, hidden_size: int) -> Init:
    if not peepholes:
        return init

    def init_with_peepholes(key: Key) -> Params:
        params = init(key)
        # `init` uses the keys that split(key) gives; fold_in gives one that is independent of them.
        keys = jax.random.split(jax.random.fold_in(key, len(params)), len(peepholes))
        normal = partial(jax.random.normal, shape=(hidden_size,))
        p = {q: 0.1 * normal(k) for q, k in zip(peepholes, keys, strict=True)}
        return {q: gate | {"p": p[q]} if q in p else gate for q, gate in params.items()}

    return init_with_peepholes
