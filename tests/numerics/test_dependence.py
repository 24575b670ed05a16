"""How results depend on arguments: the affine operations, against derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradflow.numerics.dependence import dependences

W = jnp.arange(9.0).reshape(3, 3) - 4

AFFINE = {
    "sum": lambda s, x: s + x - 2 * s,
    "products": lambda s, x: W @ s * x / 3,
    "chosen by x": lambda s, x: jnp.where(x > 0, s, -s)[::-1],
    "slices": lambda s, x: jnp.concatenate([s[1:], s[:1] + x[0]]),
    "an index": lambda s, x: s[jnp.argmax(x)] + jax.lax.dynamic_slice(s, (jnp.argmax(x),), (1,)),
    "placed": lambda s, x: jax.lax.dynamic_update_slice(s, s[:1], (jnp.argmax(x),)),
    "a nested program": lambda s, x: jax.jit(lambda s: jax.checkpoint(jnp.sum)(s) * x)(s),
    "a convolution": lambda s, x: jnp.convolve(s, x),
    "parts": lambda s, x: jnp.real(jnp.fft.ifft(jnp.fft.fft(s) * jax.lax.complex(x, x))),
    "another precision": lambda s, x: s.astype(jnp.float32).astype(jnp.float64),
}


@pytest.mark.parametrize("name", AFFINE)
def test_affine_programs_are_seen_and_have_a_constant_derivative(name):
    function, x = AFFINE[name], jnp.array([0.3, 2.0, -1.0])
    assert dependences(jax.make_jaxpr(function)(x, x), [0]) == [""]
    s = jax.random.normal(jax.random.key(0), (3,))
    wanted = function(0 * s, x) + jax.jacobian(function)(s, x) @ s
    np.testing.assert_allclose(function(s, x), wanted, rtol=1e-6, atol=1e-6)


def test_each_result_has_its_own_reason_and_constants_none():
    def function(s, x):
        return jnp.tanh(x), jnp.exp(s) + s, s * jnp.tanh(x), s * (s + x), jnp.sum(jnp.exp(s)) * s

    closed = jax.make_jaxpr(function)(jnp.ones(3), jnp.ones(3))
    assert dependences(closed, [0]) == [None, "exp", "", "mul", "exp"]
    assert dependences(closed, [1]) == ["tanh", None, "tanh", "", None]
    assert dependences(closed, []) == [None] * 5
