"""Every paper's quick run: the claims that hold at any size, at full tolerance, and its figures."""

import importlib

import bengio1994
import jax
import jax.numpy as jnp
import kerg2019
import laurent2017
import numpy as np
import pascanu2013
import pytest
import run

from gradflow import study, unroll
from gradflow.cells import LSTMCarry, rnn

# Their quick runs train networks or compile many programs: ten seconds to a minute each.
SLOW = """can2020 closed_forms engelken2023_tasks geron2019 gonzalez2025_flows hochreiter1997
    kerg2019_copy orvieto2023 pascanu2013_order pascanu2013_pathological pennington2017
    saxe2014_isometry saxe2014_learning tallec2018 tallec2018_copy vlachas2020
    vorontsov2017 zucchet2024""".split()
NAMES = [
    pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in run.papers()
]

# The table's own rounding: see the traps of kerg2019.
KNOWN = {"table6-1.05_0_0.2", "table6-1.05_0.005_0.2"}

# These measure statistics of finite runs alone.
WITHOUT_EXACT = {"gonzalez2025", "gonzalez2025_map", "tallec2018", "tallec2018_copy"}


@pytest.mark.parametrize("name", NAMES)
def test_quick_run_reproduces_exact_claims(quick_run, name):
    paper, dataset = importlib.import_module(name).EXPERIMENT, quick_run(name)
    claims = paper.claims(dataset)
    exact = {claim.id: claim for claim in claims if claim.exact}
    assert exact or name in WITHOUT_EXACT
    assert [claim.reason for claim in exact.values() if claim.verdict == "not reproduced"] == []
    assert {id for id, claim in exact.items() if "but off by" in claim.reason} == KNOWN & set(exact)
    assert len({claim.id for claim in claims}) == len(claims)
    assert {claim.figure for claim in claims} <= set(paper.figures)
    with study.figure.style():
        for draw in paper.figures.values():
            assert draw(dataset).axes
    assert paper.report(dataset).count("\n") == len(claims) - 1


def exact_memory(matrix, num_steps=150, bits=400):
    """Σ_t e_tᵀ C⁻¹ e_t in integers with so many bits behind the point."""
    one = 1 << bits
    T = np.array([[round(x * 1000) * one // 1000 for x in row] for row in matrix], dtype=object)
    C, power = np.array(np.eye(len(T), dtype=int) * 1, dtype=object) * one, T
    for _ in range(9):
        C = C + ((((power @ C) >> bits) @ power.T) >> bits)
        power = (power @ power) >> bits
    e = [np.array([one] + [0] * (len(T) - 1), dtype=object)]
    for _ in range(num_steps - 1):
        e.append((T @ e[-1]) >> bits)
    rows, total = np.stack(e, axis=1), 0
    for k in range(len(T)):  # Gauss's elimination: J = Σ_k (row k)²/pivot
        total += sum((y * y) // C[k, k] for y in rows[k])
        for i in range(k + 1, len(T)):
            factor = (C[i, k] << bits) // C[k, k]
            C[i] = C[i] - ((factor * C[k]) >> bits)
            rows[i] = rows[i] - ((factor * rows[k]) >> bits)
    return total / one


def test_the_fisher_memory_is_that_of_exact_arithmetic():
    for d, beta, alpha in ((0.2, 0.005, 1.05), (0.0, 0.005, 0.95)):
        matrix = kerg2019.theta(d, beta, alpha)[:30, :30]
        found = float(kerg2019.fisher_memory(jnp.asarray(matrix)).sum())
        np.testing.assert_allclose(found, exact_memory(matrix), rtol=1e-9)


def test_the_fisher_memory_of_a_normal_network_is_1():
    """So any network of the table, of which all are above 1, remembers more than a normal one."""
    Q = np.linalg.qr(np.random.default_rng(0).standard_normal((20, 20)))[0]
    moduli = np.repeat(np.linspace(0.1, 0.9, 10), 2)  # pairs of complex eigenvalues
    turns = np.kron(np.eye(10), [[0.6, -0.8], [0.8, 0.6]])
    memory = kerg2019.fisher_memory(jnp.asarray(Q @ (moduli[:, None] * turns) @ Q.T))
    np.testing.assert_allclose(memory.sum(), 1, rtol=1e-9)


def test_the_length_of_a_clipped_step_is_the_rate_times_the_threshold():
    """Algorithm 1 of Pascanu 2013, from the wall, where a plain step is longer than 1."""
    start = np.array([5.0, -2.6123])
    plain, clipped = (pascanu2013.descend(start, 50, clip, 1) for clip in (False, True))
    assert np.linalg.norm(plain[1] - plain[0]) > 0.1
    bound = pascanu2013.LEARNING_RATE * pascanu2013.THRESHOLD
    np.testing.assert_allclose(np.linalg.norm(clipped[1] - clipped[0]), bound, rtol=1e-9)


def test_the_gradient_through_a_latch_is_a_power_of_its_slope():
    w = np.array([1.25, 2.0])
    for one, slope in zip(w, bengio1994.slopes(w), strict=True):
        params = bengio1994.latch(jnp.asarray(one))
        x = bengio1994.settled(jnp.asarray(one), jnp.zeros(()), 2000)
        end = lambda x, params=params: unroll(  # noqa: E731
            rnn(1, 1), params, jnp.zeros((20, 1)), carry=x[None]
        ).outputs[-1, 0]
        np.testing.assert_allclose(jax.grad(end)(x), slope**20, rtol=1e-9)


@pytest.mark.parametrize("net", laurent2017.NETS)
def test_the_library_s_step_is_the_paper_s(net):
    cell, params = laurent2017.cells()[net]
    s = np.random.default_rng(0).uniform(-1, 1, (1, 4 if net == "lstm" else 2))
    u = jnp.asarray(s[0])
    carry = LSTMCarry(u[:2], u[2:]) if net == "lstm" else u
    found = cell.step(params, carry, jnp.zeros(0))[0]
    np.testing.assert_allclose(np.hstack(found), laurent2017.numpy_step(net, s)[0], atol=1e-12)
