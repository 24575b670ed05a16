"""RetNet, GLA and HGRN2 against NumPy, and against their attention forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matrix_states import HEADS, on_each_row, sample, sigmoid, silu, split, transitions
from oracle import assert_step_matches, random_state

from gradflow.cells.heads import MatrixCarry
from gradflow.cells.linear_attention import gla, hgrn2, retnet

RETNETS = [retnet(3, 6, num_heads=HEADS), retnet(3, 6, num_heads=HEADS, rotation=False)]
GLA = gla(3, 6, num_heads=HEADS, tau=4.0)
HGRN2 = hgrn2(3, 6, num_heads=HEADS, lower_bound=0.3)


def rotation_of(size, has_rotation):
    """The matrix R with s R = s rotated, for rows s: entries 0 and 1 of three by -1 radian."""
    R = np.eye(size)
    if has_rotation:
        R[:2, :2] = [[np.cos(1), -np.sin(1)], [np.sin(1), np.cos(1)]]
    return R


def retnet_matrices(has_rotation):
    return [(1 - 2.0 ** (-5 - i)) * rotation_of(3, has_rotation) for i in range(HEADS)]


def gla_terms(params, x):
    a = split(params, x)
    return [
        (q / np.sqrt(3), k, v, np.diag(sigmoid(alpha) ** (1 / 4)))
        for q, k, v, alpha in zip(a["q"], a["k"], a["v"], a["alpha"], strict=True)
    ]


def hgrn2_terms(params, x):
    a = split(params, x)
    f = [0.3 + 0.7 * sigmoid(head) for head in a["f"]]
    return [(silu(o), 1 - g, i, np.diag(g)) for o, g, i in zip(a["o"], f, a["i"], strict=True)]


def retnet_terms(params, x, has_rotation):
    a = split(params, x)
    heads = zip(a["q"], a["k"], a["v"], retnet_matrices(has_rotation), strict=True)
    return [(q, k / np.sqrt(3), v, M) for q, k, v, M in heads]


def rotated_terms(params, x):
    return retnet_terms(params, x, True)


def plain_terms(params, x):
    return retnet_terms(params, x, False)


CASES = pytest.mark.parametrize(
    "cell, terms",
    [
        pytest.param(RETNETS[0], rotated_terms, id="retnet"),
        pytest.param(RETNETS[1], plain_terms, id="retnet without rotation"),
        pytest.param(GLA, gla_terms, id="gla"),
        pytest.param(HGRN2, hgrn2_terms, id="hgrn2"),
    ],
)


@CASES
def test_step_equals_the_reference(cell, terms):
    def reference(params, carry, x):
        heads = terms(params, x)
        S = [S @ M + np.outer(v, k) for S, (_, k, v, M) in zip(carry.S, heads, strict=True)]
        h = [S_i @ q for S_i, (q, *_) in zip(S, heads, strict=True)]
        return MatrixCarry(np.stack(S), np.concatenate(h))

    assert_step_matches(cell, reference, 3)


@CASES
def test_every_row_of_the_state_has_the_same_step_matrix(cell, terms):
    jacobian, params, _, x = transitions(cell)
    expected = on_each_row([M for *_, M in terms(params, x)])
    np.testing.assert_allclose(jacobian, expected, atol=1e-15)


@pytest.mark.parametrize("has_rotation", [True, False])
def test_retention_equals_its_parallel_form(has_rotation):
    """(Q K* ∘ D) V with q and k that are rotated by their positions, as in the paper's eq. 5."""
    params, inputs, outputs = sample(RETNETS[not has_rotation])
    t = np.arange(len(inputs))
    for i in range(HEADS):
        rows = slice(3 * i, 3 * i + 3)
        q, k, v = (inputs @ params[p]["W_x"][rows].T for p in "qkv")
        # Entries 0 and 1 are a complex number with the angle 1; entry 2 is not rotated.
        q_c, k_c = ((a[:, 0] + 1j * a[:, 1]) * np.exp(1j * t * has_rotation) for a in (q, k))
        weights = (np.outer(q_c, k_c.conj()).real + np.outer(q[:, 2], k[:, 2])) / np.sqrt(3)
        D = (1 - 2.0 ** (-5 - i)) ** (t[:, None] - t)
        expected = np.tril(weights * D) @ v
        np.testing.assert_allclose(outputs[:, rows], expected, rtol=1e-11, atol=1e-14)


@pytest.mark.parametrize("size", [1, 4, 7])
def test_all_singular_values_of_a_retention_are_its_decay(size):
    cell = retnet(3, 2 * size, num_heads=2)
    values = np.linalg.svd(transitions(cell)[0], compute_uv=False)
    expected = np.repeat([63 / 64, 31 / 32], size**2)
    np.testing.assert_allclose(values, expected, rtol=1e-13)


def test_frequencies_of_the_rotation_are_those_of_rotary_embeddings():
    eigenvalues = np.linalg.eigvals(transitions(retnet(3, 4))[0])
    angles = np.sort(np.abs(np.angle(eigenvalues)))
    np.testing.assert_allclose(angles, [0.01] * 8 + [1.0] * 8, rtol=1e-10)


@pytest.mark.parametrize("tau, expected", [(1.0, 0.5), (16.0, 0.5 ** (1 / 16))])
def test_temperature_moves_the_gate_near_1(key, tau, expected):
    cell = gla(3, 4, tau=tau)
    gates = cell.gates(cell.init(key), cell.initial_carry(), jnp.zeros(3))
    np.testing.assert_allclose(gates["alpha"], expected)


def test_lower_bound_and_bias_of_the_forget_gate(key):
    for bias, expected in [(-800.0, 0.3), (0.0, 0.65), (800.0, 1.0)]:
        cell = hgrn2(3, 4, lower_bound=0.3, forget_bias=bias)
        gates = cell.gates(cell.init(key), cell.initial_carry(), jnp.zeros(3))
        np.testing.assert_allclose(gates["f"], expected)


def test_entries_of_the_state_of_an_hgrn2_are_averages_of_inputs():
    params, _, _ = random_state(HGRN2, 3)
    params["i"]["W_x"] = jnp.zeros((6, 3)).at[:, 0].set(1.0)
    carry = HGRN2.initial_carry()
    carry = carry._replace(S=carry.S + 2.5)
    inputs = jax.random.normal(jax.random.key(2), (5, 3))
    for x in inputs.at[:, 0].set(2.5):  # the value i of every unit at every step
        carry, _ = HGRN2.step(params, carry, x)
    np.testing.assert_allclose(carry.S, 2.5)


def attention(decays, q, k, v):
    """Σ_s (q_t ∘ α_{s+1} ∘ ... ∘ α_t · k_s) v_s for s ≤ t, from cumulative logarithms."""
    logs = np.cumsum(np.log(decays), axis=0)
    weights = np.einsum("tk,tsk,sk->ts", q, np.exp(logs[:, None] - logs[None]), k)
    return np.tril(weights) @ v


@pytest.mark.parametrize(
    "cell, terms",
    [
        pytest.param(GLA, gla_terms, id="gla"),
        pytest.param(HGRN2, hgrn2_terms, id="hgrn2"),
        pytest.param(RETNETS[1], plain_terms, id="retnet without rotation"),
    ],
)
def test_recurrence_equals_the_attention_form(cell, terms):
    params, inputs, outputs = sample(cell)
    steps = [terms(params, x) for x in inputs]
    for i in range(HEADS):
        q, k, v, M = (np.stack(values) for values in zip(*[s[i] for s in steps], strict=True))
        expected = attention(np.diagonal(M, axis1=1, axis2=2), q, k, v)
        np.testing.assert_allclose(outputs[:, 3 * i : 3 * i + 3], expected, rtol=1e-12)
