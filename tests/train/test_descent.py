"""Gradient descent inside jit, against the same updates written out."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from gradflow.train import Descent, descend, step

ADAM = optax.adam(0.1)
TARGETS = np.random.default_rng(0).normal(size=(5, 3))


def gradient(params, target):
    loss, slope = jax.value_and_grad(lambda p: jnp.sum((p["w"] - target) ** 4))(params)
    return slope, {"loss": loss, "before": params["w"]}


def test_a_scan_of_updates_is_the_updates_one_after_the_other():
    first = Descent.start(ADAM, {"w": jnp.ones(3)})
    end, records = jax.jit(lambda: descend(gradient, ADAM, first, TARGETS))()
    w, mean, square = np.ones(3), np.zeros(3), np.zeros(3)
    for number, target in enumerate(TARGETS, start=1):
        np.testing.assert_allclose(records["before"][number - 1], w, rtol=1e-9)
        np.testing.assert_allclose(records["loss"][number - 1], ((w - target) ** 4).sum())
        slope = 4 * (w - target) ** 3
        mean, square = 0.9 * mean + 0.1 * slope, 0.999 * square + 0.001 * slope**2
        size = np.sqrt(square / (1 - 0.999**number)) + 1e-8
        w = w - 0.1 * mean / (1 - 0.9**number) / size
    np.testing.assert_allclose(end.params["w"], w, rtol=1e-9)


def test_an_update_adds_what_the_optimiser_makes_of_the_gradient():
    descent = Descent.start(optax.sgd(0.5), {"w": jnp.array([1.0, 2.0])})
    after = step(optax.sgd(0.5), descent, {"w": jnp.array([2.0, -2.0])})
    np.testing.assert_array_equal(after.params["w"], [0.0, 3.0])
