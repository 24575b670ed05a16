"""The Fisher memory against its definition, and the coefficients of HiPPO-LegS."""

import _fisher
import gu2020
import jax.numpy as jnp
import kerg2019
import numpy as np


def test_the_memory_is_that_of_its_definition():
    random = np.random.default_rng(0)
    W = 0.2 * random.standard_normal((4, 4))
    v = random.standard_normal((4, 2))
    powers = [np.linalg.matrix_power(W, k) for k in range(60)]
    C = sum(power @ power.T for power in powers)
    wanted = [np.diag(v.T @ power.T @ np.linalg.solve(C, power @ v)) for power in powers]
    found = _fisher.fisher_memory(jnp.asarray(W), jnp.asarray(v), 60)
    np.testing.assert_allclose(found, wanted, atol=1e-12)
    one = _fisher.fisher_memory(jnp.asarray(W), jnp.asarray(v[:, 0]), 60)
    np.testing.assert_allclose(one, found[:, 0], atol=1e-14)


def test_the_memory_of_a_chain_agrees_with_the_other_paper_s():
    W = jnp.asarray(_fisher.chain(30, 1.05))
    found = _fisher.fisher_memory(W, jnp.asarray(_fisher.source(30)), 30)
    np.testing.assert_allclose(found, kerg2019.fisher_memory(W)[:30], rtol=1e-10)


def test_a_memory_holds_a_constant_and_a_ramp():
    """With √(2n+1) P_n on [0, 1], 1 has c = (1, 0, ...) and x has (1/2, 1/√12, 0, ...)."""
    steps = 3000
    constant = gu2020.coefficients(4, np.ones(steps))
    np.testing.assert_allclose(constant, [1, 0, 0, 0], atol=2e-3)
    ramp = gu2020.coefficients(4, (np.arange(steps) + 0.5) / steps)
    np.testing.assert_allclose(ramp, [1 / 2, 1 / np.sqrt(12), 0, 0], atol=2e-3)
