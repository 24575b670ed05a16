"""The long short-term memory of Hochreiter & Schmidhuber, with the forget gate of Gers."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gradflow.cell import Cell, Key, Params
from gradflow.cells.parts import RecurrentInit, affine, init_gates
from gradflow.initializers import BiasSpec, InitSpec


class LSTMCarry(NamedTuple):
    """The two states of an LSTM: the hidden state h and the cell state c."""

    h: Float[Array, " hidden"]
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
    recurrent_init: RecurrentInit = "orthogonal",
    input_init: InitSpec = "lecun",
) -> Cell:
    """The LSTM with a forget gate and without peepholes, unless its options say otherwise.

    With σ the logistic function and a_t^q = W_x^q x_t + W_h^q h_{t-1} + b^q for each gate q::

        i_t = σ(a_t^i)    f_t = σ(a_t^f)    o_t = σ(a_t^o)    g_t = tanh(a_t^g)
        c_t = f_t ∘ c_{t-1} + i_t ∘ g_t
        h_t = o_t ∘ tanh(c_t)

    Args:
      forget_bias: Initial value of b^f; nothing is added inside the step. By default 1, as in
        Keras; Flax starts at 0, PyTorch at random. The other biases start at zero.
        ``"chrono(max_lag=100)"`` initialises b^f to remember for up to 100 steps and sets
        b^i = -b^f as well; every other law sets b^f alone.
      input_bias: Initial value of b^i. By default 0, or what the law of the forget bias sets.
        Below zero the cell starts closed, as in the paper of 1997.
      peephole: Whether the gates look at the cell, or which of them do, as in ``"if"``: p^q ∘ c
        is added to a_t^q, with c_{t-1} for i and f and c_t for o. p^q is a vector of its own
        for each gate and starts at N(0, 0.1²), as in Lasagne.
      coupled: Whether i_t = 1 - f_t, so that there are no parameters of i.
      forget_gate: False gives the LSTM of 1997: f_t = 1, and there are no parameters of f.
      recurrent_init: Of each gate's W_h by itself, as Flax Linen draws it; Keras draws one
        orthogonal matrix for all four gates at once.
      input_init: Of each gate's W_x.

    Raises:
      ValueError: If the options contradict each other, or a gate that is not there shall look.

    Source: Hochreiter & Schmidhuber 1997; Gers, Schmidhuber, Cummins 2000 (forget gate);
    Gers, Schraudolph, Schmidhuber 2002 (peepholes); Jozefowicz, Zaremba, Sutskever 2015 (forget
    bias 1); Greff et al. 2015, arXiv:1503.04069 (coupled gates, there CIFG); Tallec & Ollivier
    2018, arXiv:1804.11188 (chrono).
    """
    if not forget_gate and (coupled or forget_bias is not None):
        raise ValueError(
            f"coupled and forget_bias are of the forget gate, got coupled={coupled} and "
            f"forget_bias={forget_bias} with forget_gate=False: leave them out, or keep the gate"
        )
    if coupled and input_bias is not None:
        raise ValueError(
            f"input_bias is of the input gate, got {input_bias} with coupled=True, which has "
            "none: give forget_bias, as i_t = 1 - f_t"
        )
    names = "fgo" if coupled else "ifgo" if forget_gate else "igo"
    looks = _looking_gates(peephole, names)
    init = init_gates(
        names,
        input_size,
        hidden_size,
        recurrent_init=recurrent_init,
        input_init=input_init,
        biases={"f": 1.0 if forget_bias is None else forget_bias, "i": input_bias},
    )
    advance = _equations(names, looks)

    def step(params: Params, carry: LSTMCarry, x: Array) -> tuple[LSTMCarry, Array]:
        gates, c = advance(params, carry, x)
        h = gates["o"] * jnp.tanh(c)
        return LSTMCarry(h, c), h

    return Cell(
        init=_with_peepholes(init, looks, hidden_size) if looks else init,
        step=step,
        initial_carry=lambda: LSTMCarry(jnp.zeros(hidden_size), jnp.zeros(hidden_size)),
        hidden=lambda carry: carry.h,
        gates=lambda params, carry, x: advance(params, carry, x)[0],
    )


def _looking_gates(peephole: bool | str, names: str) -> str:
    able = names.replace("g", "")
    looks = peephole if isinstance(peephole, str) else able * peephole
    for gate in looks:
        if gate not in able:
            raise ValueError(
                f"the gates that can look at the cell are {able!r} with these options, got "
                f"{gate!r} in peephole={peephole!r}: leave it out, or say peephole=True for all"
            )
    return looks


def _equations(names: str, looks: str) -> Callable[..., tuple[dict[str, Array], Array]]:
    """The gates and c_t, where `names` have parameters and `looks` see the cell."""

    def sigmoid(params: Params, a: dict[str, Array], gate: str, c: Array) -> Array:
        return jax.nn.sigmoid(a[gate] + params[gate]["p"] * c if gate in looks else a[gate])

    def advance(params: Params, carry: LSTMCarry, x: Array) -> tuple[dict[str, Array], Array]:
        a = {gate: affine(params[gate], carry.h, x) for gate in names}
        f = sigmoid(params, a, "f", carry.c) if "f" in names else jnp.ones_like(carry.c)
        i = sigmoid(params, a, "i", carry.c) if "i" in names else 1 - f
        g = jnp.tanh(a["g"])
        c = f * carry.c + i * g
        o = sigmoid(params, a, "o", c)
        return {"i": i, "f": f, "g": g, "o": o}, c

    return advance


def _with_peepholes(
    init: Callable[[Key], Params], looks: str, hidden_size: int
) -> Callable[[Key], Params]:
    def init_with_peepholes(key: Key) -> Params:
        params = init(key)
        # A key beyond those that the gates are split off to, so that none is used twice.
        keys = jax.random.split(jax.random.fold_in(key, len(params)), len(looks))
        draw = {q: jax.random.normal(k, (hidden_size,)) for q, k in zip(looks, keys, strict=True)}
        return {q: p | {"p": 0.1 * draw[q]} if q in draw else p for q, p in params.items()}

    return init_with_peepholes
